"""The store: what a chat set and asked comes back, is kept, and is gone when it shall be gone."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from bot.errors import ContextTooLong
from bot.store import Author, Chat, Cleared, Context, Listed, Store
from qa_engine import Answer

CHAT = Chat(id=-1_001_234_567_890_123, kind="supergroup", title="读书会")  # wider than 32 bits
OTHER = Chat(id=7, kind="private")
ANN = Author(id=7_000_000_001, name="安 🦊")
BOB = Author(id=8, name="鲍勃")
TEXT = "𠮷野家位於東京。\r\n它成立于1899年，创始人是松田荣吉👩‍👩‍👧。"
ANSWER = Answer(text="1899年", start=14, end=19, score=0.87)


async def rows(database_url: str, table: str) -> list[dict[str, Any]]:
    """The table as it stands, read past the store."""
    engine = create_async_engine(database_url)
    async with engine.connect() as connection:
        result = await connection.execute(text(f"SELECT * FROM {table} ORDER BY 1"))  # noqa: S608
        found = [dict(row) for row in result.mappings()]
    await engine.dispose()
    return found


def holds(file: Path, written: str) -> bool:
    return written.encode() in file.read_bytes()


async def ask(store: Store, context: Context, answer: Answer | None = ANSWER) -> int | None:
    return await store.record_question(
        chat_id=context.chat_id,
        context_id=context.id,
        author=BOB,
        message_id=11,
        text="它成立于哪一年？",
        answer=answer,
        no_answer_score=0.05,
        checkpoint="2026-11-23T10-00-00",
        latency_ms=12.5,
    )


async def test_a_paragraph_comes_back_as_it_was_set(store: Store) -> None:
    before = datetime.now(UTC)
    context = await store.set_context(CHAT, TEXT, ANN, message_id=5)
    assert before <= context.set_at <= datetime.now(UTC)
    assert replace(context, id=0, set_at=before) == Context(0, CHAT.id, TEXT, ANN, 5, before)
    assert await store.current_context(CHAT.id) == context


async def test_times_are_aware_and_in_utc(store: Store) -> None:
    await store.set_context(CHAT, TEXT, ANN, message_id=5)
    context = await store.current_context(CHAT.id)
    assert context is not None
    assert context.set_at.tzinfo is UTC


async def test_nothing_is_set_in_a_new_chat(store: Store) -> None:
    assert await store.current_context(CHAT.id) is None
    assert await store.append_context(CHAT, TEXT, ANN, max_chars=99, message_id=None) is None
    assert await store.questions_answered() == 0


async def test_chats_do_not_see_each_other(store: Store) -> None:
    await store.set_context(CHAT, TEXT, ANN, message_id=5)
    assert await store.current_context(OTHER.id) is None


async def test_a_context_that_is_no_longer_current_is_kept(store: Store, database_url: str) -> None:
    first = await store.set_context(CHAT, "一", ANN, message_id=1)
    second = await store.set_context(CHAT, "二", BOB, message_id=2)
    assert await store.current_context(CHAT.id) == second
    kept = await rows(database_url, "contexts")
    assert [(row["id"], row["text"], bool(row["is_current"]), row["replaced_at"]) for row in kept] == [
        (first.id, "一", False, None),
        (second.id, "二", True, None),
    ]


async def test_contexts_are_listed_with_the_last_used_first_and_can_be_switched_to(store: Store) -> None:
    first = await store.set_context(CHAT, TEXT, ANN, message_id=1)
    second = await store.set_context(CHAT, "二" * 100, BOB, message_id=2, title="第二 <本>")
    listed, number = await store.contexts(CHAT.id, 0, offset=0, limit=9)
    assert number == 2
    assert listed == [
        Listed(second.id, "第二 <本>", 100, second.set_at, is_current=True),
        Listed(first.id, TEXT, len(TEXT), first.set_at, is_current=False),
    ]
    assert await store.switch_context(CHAT.id, first.id)
    assert await store.current_context(CHAT.id) == first
    listed, _ = await store.contexts(CHAT.id, 0, offset=0, limit=1)
    assert listed == [await store.listed(CHAT.id, first.id)]
    assert listed[0].is_current


async def test_a_context_is_out_of_reach_of_other_chats(store: Store) -> None:
    context = await store.set_context(CHAT, TEXT, ANN, message_id=1)
    assert await store.listed(OTHER.id, context.id) is None
    assert not await store.switch_context(OTHER.id, context.id)
    assert not await store.rename_context(OTHER.id, context.id, "我的")
    assert not await store.delete_context(OTHER.id, context.id)
    assert await store.current_context(CHAT.id) == context


async def test_a_renamed_context_keeps_its_name_when_it_grows_or_is_edited(store: Store) -> None:
    context = await store.set_context(CHAT, "一", ANN, message_id=1, source="pdf", page_starts=[0])
    assert await store.rename_context(CHAT.id, context.id, "合同\0")
    appended = await store.append_context(CHAT, "二", ANN, 9, message_id=2)
    assert appended
    assert (appended.title, appended.source, appended.page_starts) == ("合同", "pdf", (0,))
    edited = await store.set_context(CHAT, "三", ANN, message_id=2)
    assert edited.title == "合同"
    assert (await store.contexts(CHAT.id, 0, 0, 9))[1] == 1


async def test_a_deleted_context_takes_its_versions_and_questions_along(store: Store, database_url: str) -> None:
    kept = await store.set_context(CHAT, "留", ANN, message_id=1)
    await ask(store, kept)
    doomed = await store.set_context(CHAT, "删", ANN, message_id=2)
    await ask(store, doomed)
    longer = await store.append_context(CHAT, "除", ANN, 9, message_id=3)
    assert longer
    await ask(store, longer)
    assert not await store.delete_context(CHAT.id, doomed.id)  # a version that was replaced is in no list
    assert await store.delete_context(CHAT.id, longer.id)
    assert [row["text"] for row in await rows(database_url, "contexts")] == ["留"]
    assert await store.questions_answered(CHAT.id) == 1
    assert await store.current_context(CHAT.id) == kept
    assert await store.delete_context(CHAT.id, kept.id)
    assert await store.current_context(CHAT.id) is None
    assert not await store.delete_context(CHAT.id, kept.id)


async def test_each_topic_has_a_current_context_of_its_own(store: Store) -> None:
    general = await store.set_context(CHAT, "总", ANN, message_id=1)
    topic = await store.set_context(CHAT, "话题", ANN, message_id=2, topic_id=77)
    assert await store.current_context(CHAT.id) == general
    assert await store.current_context(CHAT.id, 77) == topic
    assert await store.current_context(CHAT.id, 78) is None
    assert await store.append_context(CHAT, "二", ANN, 99, message_id=3, topic_id=78) is None
    appended = await store.append_context(CHAT, "二", ANN, 99, message_id=3, topic_id=77)
    assert appended
    assert appended.text == "话题\n二"
    assert [listed.id for listed in (await store.contexts(CHAT.id, 77, 0, 9))[0]] == [appended.id]
    assert await store.current_context(CHAT.id) == general


async def test_a_paste_is_joined_while_it_is_open_and_by_its_author_only(store: Store) -> None:
    sent_at = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)
    later = sent_at + timedelta(seconds=3)
    first = await store.set_context(CHAT, "一", ANN, message_id=5, open_until=later)
    await store.note_confirmation(first.id, 6)

    async def join(
        author: Author = ANN, at: datetime = sent_at, message_id: int = 7, more: bool = True
    ) -> Context | None:
        open_until = later if more else None
        return await store.join_part(CHAT.id, 0, author, message_id, at, "二", 3, open_until)

    assert await join(author=BOB) is None
    assert await join(at=later + timedelta(seconds=1)) is None
    assert await join(message_id=5) is None
    second = await join()
    assert second
    assert (second.text, second.parts, second.confirmation_id) == ("一二", 2, 6)
    third = await join(message_id=8)
    assert third
    assert third.text == "一二二"
    last = await join(message_id=9, more=False)
    assert last
    assert (last.text, last.parts) == ("一二二", 4)  # as much as is allowed
    assert await join(message_id=10) is None
    assert (await store.contexts(CHAT.id, 0, 0, 9))[1] == 1


async def test_a_part_follows_on_a_new_line_where_the_client_has_trimmed_the_break(store: Store) -> None:
    now = datetime.now(UTC)
    await store.set_context(CHAT, "一", ANN, message_id=5, open_until=now)
    await store.join_part(CHAT.id, 0, ANN, 6, now, "二", 9, now, trimmed_id=5)
    whole = await store.join_part(CHAT.id, 0, ANN, 7, now, "三四", 5, now, trimmed_id=5)
    assert whole
    assert whole.text == "一\n二三四"


async def test_a_paragraph_has_grown_when_another_message_has_added_to_it(store: Store) -> None:
    await store.set_context(CHAT, "一", ANN, message_id=1)
    await store.set_context(CHAT, "二", ANN, message_id=2)
    await store.set_context(CHAT, "二改", ANN, message_id=2)
    assert not await store.has_grown(CHAT.id, 0, 2)
    await store.append_context(CHAT, "三", ANN, 9, message_id=3)
    assert await store.has_grown(CHAT.id, 0, 2)
    assert [await store.has_grown(CHAT.id, 0, message_id) for message_id in (1, 3, 4)] == [False] * 3
    assert not await store.has_grown(CHAT.id, 77, 2)
    assert not await store.has_grown(OTHER.id, 0, 2)


async def test_a_message_that_is_replayed_is_not_added_twice(store: Store) -> None:
    await store.set_context(CHAT, "一", ANN, message_id=1, open_until=datetime.now(UTC) + timedelta(minutes=1))
    parts = [await store.join_part(CHAT.id, 0, ANN, 2, datetime.now(UTC), "二", 9, None) for _ in range(2)]
    grown = [await store.append_context(CHAT, "三", ANN, 9, message_id=3) for _ in range(2)]
    assert [context.text for context in (*parts, *grown) if context] == ["一二", "一二", "一二\n三", "一二\n三"]


async def test_the_context_of_an_answer_is_found_by_its_message(store: Store) -> None:
    context = await store.set_context(CHAT, "一", ANN, message_id=1)
    question_id = await ask(store, context)
    assert question_id is not None
    await store.note_reply(question_id, 12)
    longer = await store.append_context(CHAT, "二", ANN, 9, message_id=2)
    await store.set_context(CHAT, "另外一篇", ANN, message_id=3)
    found = await store.context_answered_from(CHAT.id, reply_message_id=12)
    assert found == longer
    assert await store.context_answered_from(CHAT.id, reply_message_id=13) is None
    assert await store.context_answered_from(OTHER.id, reply_message_id=12) is None


def test_a_page_is_told_by_the_offset_of_its_first_character() -> None:
    context = Context(1, 1, "一二三四", ANN, 1, datetime.now(UTC), page_starts=(0, 2, 2))
    assert [context.page_at(offset) for offset in range(4)] == [1, 1, 3, 3]
    assert replace(context, page_starts=()).page_at(0) is None


async def test_a_chat_keeps_its_newest_title(store: Store, database_url: str) -> None:
    await store.set_context(CHAT, TEXT, ANN, message_id=1)
    await store.set_context(replace(CHAT, title="新读书会"), TEXT, ANN, message_id=2)
    assert [row["title"] for row in await rows(database_url, "chats")] == ["新读书会"]


async def test_appended_text_stands_on_a_line_of_its_own(store: Store) -> None:
    await store.set_context(CHAT, "一", ANN, message_id=1)
    appended = await store.append_context(CHAT, "二", BOB, max_chars=3, message_id=2)
    assert appended is not None
    assert (appended.text, appended.author, appended.message_id) == ("一\n二", BOB, 2)
    assert await store.current_context(CHAT.id) == appended


async def test_a_question_stays_with_the_text_it_was_asked_about(store: Store, database_url: str) -> None:
    asked_about = await store.set_context(CHAT, TEXT, ANN, message_id=1)
    await ask(store, asked_about)
    await store.append_context(CHAT, "后来搬到了大阪。", ANN, max_chars=1000, message_id=2)
    contexts = {row["id"]: row["text"] for row in await rows(database_url, "contexts")}
    [question] = await rows(database_url, "questions")
    assert contexts[question["context_id"]] == TEXT


async def test_an_appended_text_that_is_too_long_changes_nothing(store: Store, database_url: str) -> None:
    context = await store.set_context(CHAT, "一二三", ANN, message_id=1)
    with pytest.raises(ContextTooLong) as caught:
        await store.append_context(CHAT, "四五", ANN, max_chars=5, message_id=2)
    assert (caught.value.chars, caught.value.max_chars) == (6, 5)
    assert await store.current_context(CHAT.id) == context
    assert len(await rows(database_url, "contexts")) == 1


async def test_a_question_is_kept_with_its_answer(store: Store, database_url: str) -> None:
    context = await store.set_context(CHAT, TEXT, ANN, message_id=1)
    question_id = await ask(store, context)
    [row] = await rows(database_url, "questions")
    del row["asked_at"], row["candidates"]
    assert row == {
        "id": question_id,
        "chat_id": CHAT.id,
        "context_id": context.id,
        "author_id": BOB.id,
        "message_id": 11,
        "text": "它成立于哪一年？",
        "answer_text": "1899年",
        "answer_start": 14,
        "answer_end": 19,
        "answer_score": 0.87,
        "no_answer_score": 0.05,
        "checkpoint": "2026-11-23T10-00-00",
        "latency_ms": 12.5,
        "reply_message_id": None,
    }


async def test_an_abstention_is_kept_without_an_answer(store: Store, database_url: str) -> None:
    await ask(store, await store.set_context(CHAT, TEXT, ANN, message_id=1), answer=None)
    [row] = await rows(database_url, "questions")
    assert [row[f"answer_{part}"] for part in ("text", "start", "end", "score")] == [None] * 4


async def test_questions_are_counted_by_chat_and_together(store: Store) -> None:
    here = await store.set_context(CHAT, TEXT, ANN, message_id=1)
    there = await store.set_context(OTHER, TEXT, ANN, message_id=1)
    await ask(store, here)
    await ask(store, here, answer=None)
    await ask(store, there)
    assert await store.questions_answered(CHAT.id) == 2
    assert await store.questions_answered(OTHER.id) == 1
    assert await store.questions_answered() == 3


async def test_clear_leaves_nothing_of_the_chat_and_all_of_others(store: Store, database_url: str) -> None:
    await ask(store, await store.set_context(CHAT, "一", ANN, message_id=1))
    await ask(store, await store.set_context(CHAT, "二", ANN, message_id=2))
    await ask(store, await store.set_context(OTHER, "三", ANN, message_id=1))
    assert await store.clear(CHAT.id) == Cleared(contexts=2, questions=2)
    assert await store.current_context(CHAT.id) is None
    assert [row["id"] for row in await rows(database_url, "chats")] == [OTHER.id]
    assert [row["text"] for row in await rows(database_url, "contexts")] == ["三"]
    assert len(await rows(database_url, "questions")) == 1
    assert await store.clear(CHAT.id) == Cleared(contexts=0, questions=0)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_cleared_text_cannot_be_read_from_the_file(store: Store, database_url: str) -> None:
    file = Path(make_url(database_url).database or "")
    needle = "无人知晓的秘密"
    await store.set_context(CHAT, needle * 1000, ANN, message_id=1)
    await store.close()
    assert holds(file, needle)
    await store.clear(CHAT.id)
    await store.close()
    assert not holds(file, needle)
    assert not file.with_name("duwen.db-wal").exists()


async def test_an_answer_that_comes_after_clear_is_not_kept(store: Store) -> None:
    cleared = await store.set_context(CHAT, "旧的秘密", ANN, message_id=1)
    await store.clear(CHAT.id)
    assert await ask(store, cleared) is None
    await store.set_context(CHAT, "新的", ANN, message_id=2)
    assert await ask(store, cleared) is None
    assert await store.questions_answered() == 0


async def test_two_contexts_at_the_same_moment_leave_one_current_and_keep_both(store: Store, database_url: str) -> None:
    texts = [f"第{n}段" for n in range(8)]
    contexts = await asyncio.gather(
        *(store.set_context(CHAT, each, ANN, message_id=number) for number, each in enumerate(texts))
    )
    kept = await rows(database_url, "contexts")
    assert sorted(row["text"] for row in kept) == sorted(texts)
    assert [row["id"] for row in kept if row["is_current"]] == [max(each.id for each in contexts)]


async def test_two_appends_at_the_same_moment_both_count(store: Store) -> None:
    await store.set_context(CHAT, "零", ANN, message_id=1)
    parts = [str(n) for n in range(8)]
    await asyncio.gather(*(store.append_context(CHAT, each, ANN, 100, message_id=2 + int(each)) for each in parts))
    context = await store.current_context(CHAT.id)
    assert context is not None
    first, *others = context.text.split("\n")
    assert (first, sorted(others)) == ("零", parts)


async def test_clear_among_questions_leaves_nothing_behind(store: Store) -> None:
    context = await store.set_context(CHAT, TEXT, ANN, message_id=1)
    asked = [asyncio.create_task(ask(store, context)) for _ in range(4)]
    cleared = await store.clear(CHAT.id)
    recorded = [question_id for question_id in await asyncio.gather(*asked) if question_id is not None]
    assert cleared == Cleared(contexts=1, questions=len(recorded))
    assert await store.questions_answered() == 0


async def test_a_second_current_context_is_refused_by_the_database_itself(store: Store, database_url: str) -> None:
    await store.set_context(CHAT, "一", ANN, message_id=1)
    await store.set_context(CHAT, "二", ANN, message_id=2)
    engine = create_async_engine(database_url)
    with pytest.raises(Exception, match=r"(?i)unique"):
        async with engine.begin() as connection:
            await connection.execute(text("UPDATE contexts SET is_current = true"))
    await engine.dispose()


async def test_a_group_that_becomes_a_supergroup_keeps_everything(store: Store, database_url: str) -> None:
    group = Chat(id=-42, kind="group", title="读书会")
    await ask(store, await store.set_context(group, "一", ANN, message_id=1))
    current = await store.set_context(group, "二", ANN, message_id=2)
    await store.migrate_chat(group.id, CHAT.id)
    await store.migrate_chat(group.id, CHAT.id)
    assert await store.current_context(group.id) is None
    assert await store.current_context(CHAT.id) == replace(current, chat_id=CHAT.id, message_id=None)
    assert await store.questions_answered(CHAT.id) == 1
    [chat] = await rows(database_url, "chats")
    assert (chat["id"], chat["kind"], chat["title"]) == (CHAT.id, "supergroup", "读书会")


async def test_a_supergroup_s_messages_are_not_taken_for_those_of_the_group_before(store: Store) -> None:
    group, sent_at = Chat(id=-42, kind="group"), datetime.now(UTC)
    old = await store.set_context(group, "旧", ANN, message_id=17, open_until=sent_at)
    await store.note_confirmation(old.id, 18)
    question_id = await ask(store, old)
    assert question_id is not None
    await store.note_reply(question_id, 20)
    await store.migrate_chat(group.id, CHAT.id)
    moved = await store.current_context(CHAT.id)
    assert moved
    assert (moved.message_id, moved.confirmation_id) == (None, None)
    assert await store.join_part(CHAT.id, 0, ANN, 19, sent_at, "二", 9, None) is None
    assert await store.context_answered_from(CHAT.id, reply_message_id=20) is None
    await store.set_context(CHAT, "新", ANN, message_id=17)
    assert (await store.contexts(CHAT.id, 0, 0, 9))[1] == 2


async def test_groups_that_become_supergroups_at_the_same_moment_all_keep_their_settings(store: Store) -> None:
    moves = {-number: -1000 - number for number in range(1, 9)}
    for old in moves:
        await store.let_only_admins_set(old, True)
    await asyncio.gather(*(store.migrate_chat(old, new) for old, new in moves.items()))
    assert all([await store.only_admins_set(new) for new in moves.values()])


async def test_what_a_supergroup_set_before_its_move_stays_current(store: Store, database_url: str) -> None:
    group = Chat(id=-42, kind="group")
    await store.set_context(group, "旧", ANN, message_id=1)
    newer = await store.set_context(CHAT, "新", ANN, message_id=1)
    await store.migrate_chat(group.id, CHAT.id)
    assert await store.current_context(CHAT.id) == newer
    assert {row["chat_id"] for row in await rows(database_url, "contexts")} == {CHAT.id}


async def test_moving_an_unknown_chat_changes_nothing(store: Store, database_url: str) -> None:
    await store.migrate_chat(-42, CHAT.id)
    assert await rows(database_url, "chats") == []


async def test_null_bytes_and_lone_surrogates_are_dropped_everywhere(store: Store) -> None:
    chat = replace(CHAT, title="题\0目\ud800")
    context = await store.set_context(chat, "甲\0乙\ud83d丙", Author(1, "名\udfff\0字"), message_id=1)
    assert context.text == "甲乙丙"
    appended = await store.append_context(chat, "\0丁\udc00", ANN, max_chars=5, message_id=2)
    assert appended is not None
    assert appended.text == "甲乙丙\n丁"
    stored = await store.current_context(CHAT.id)
    assert stored == appended


# One database serves all examples: each one replaces the paragraph of the last.
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(written=st.text(st.characters(codec=None, exclude_categories=())))
async def test_any_text_is_stored_as_the_text_that_is_returned(store: Store, written: str) -> None:
    context = await store.set_context(CHAT, written, ANN, message_id=1)
    assert context.text == written.replace("\0", "").encode(errors="ignore").decode()
    assert await store.current_context(CHAT.id) == context
