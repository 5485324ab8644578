"""The store keeps candidates, verdicts and permissions, and lets nothing out that a chat has not allowed."""

from datetime import UTC, datetime, timedelta

from bot.store import Author, Candidate, Chat, Context, Correction, Forgotten, Question, Store, Verdict
from qa_engine import Answer

ANN = Author(1, "安")
PRIVATE = Chat(7, "private")
GROUP = Chat(-8, "supergroup", "组")
CANDIDATES = (Answer("一", 0, 1, 0.7), Answer("二", 1, 2, 0.2))


async def asked(store: Store, chat: Chat = PRIVATE, *, is_answered: bool = True) -> Question:
    context = await store.set_context(chat, "一二三", ANN, None)
    number = await ask(store, context, is_answered=is_answered)
    question = await store.question(chat.id, number)
    assert question is not None
    return question


async def ask(store: Store, context: Context, *, is_answered: bool) -> int:
    number = await store.record_question(
        chat_id=context.chat_id,
        context_id=context.id,
        author=ANN,
        message_id=1,
        text="谁？",
        answer=CANDIDATES[0] if is_answered else None,
        candidates=CANDIDATES,
        no_answer_score=0.1,
        checkpoint="c",
        latency_ms=1.0,
    )
    assert number is not None
    return number


async def test_a_question_comes_back_with_its_text_and_candidates(store: Store) -> None:
    question = await asked(store)
    assert question.context.text == "一二三"
    assert question.text == "谁？"
    assert question.is_answered
    assert question.candidates == (Candidate(0, 1, 0.7), Candidate(1, 2, 0.2))
    assert not (await asked(store, is_answered=False)).is_answered


async def test_a_question_is_its_chat_s_alone(store: Store) -> None:
    question = await asked(store)
    assert await store.question(GROUP.id, question.id) is None
    assert await store.question(PRIVATE.id, question.id + 1) is None


async def test_a_user_has_one_verdict_on_a_question_and_the_last_one_counts(store: Store) -> None:
    question = await asked(store)
    assert await store.judge(question, 1, Verdict.RIGHT)
    assert await store.judge(question, 2, Verdict.WRONG)
    assert await store.judge(question, 1, Verdict.WRONG, Correction("二", 1, 2))
    said = [(one.user_id, one.verdict, one.given, one.span) for one in await store.judgements()]
    assert sorted(said) == [(1, Verdict.WRONG, (0, 1), (1, 2)), (2, Verdict.WRONG, (0, 1), None)]


async def test_a_right_answer_is_the_one_that_was_given(store: Store) -> None:
    await store.judge(await asked(store), 1, Verdict.RIGHT)
    [said] = await store.judgements()
    assert (said.context, said.question, said.span) == ("一二三", "谁？", (0, 1))


async def test_a_question_is_known_to_its_own_chat_only(store: Store) -> None:
    question = await asked(store)
    assert await store.question(PRIVATE.id, question.id) == question
    assert await store.question(GROUP.id, question.id) is None


async def test_nothing_is_kept_of_a_question_that_is_gone(store: Store) -> None:
    question = await asked(store)
    await store.clear(PRIVATE.id)
    assert not await store.judge(question, 1, Verdict.RIGHT)
    assert await store.judgements() == []


async def test_groups_teach_only_when_they_said_so_and_private_chats_unless_they_said_no(store: Store) -> None:
    for chat in (PRIVATE, GROUP):
        await store.judge(await asked(store, chat), 1, Verdict.RIGHT)
        assert await store.may_learn(chat) == (chat is PRIVATE)
        await store.set_learning(chat.id, is_allowed=chat is not PRIVATE)
        assert len(await store.judgements()) == (0 if chat is PRIVATE else 1)
    await store.set_learning(PRIVATE.id, is_allowed=True)
    assert len(await store.judgements()) == 2


async def test_only_what_was_said_since_is_given_out(store: Store) -> None:
    await store.judge(await asked(store), 1, Verdict.RIGHT)
    now = datetime.now(UTC)
    assert len(await store.judgements(now - timedelta(hours=1))) == 1
    assert await store.judgements(now + timedelta(hours=1)) == []


async def test_forgetting_leaves_nothing_of_the_chat_and_all_of_others(store: Store) -> None:
    for chat in (PRIVATE, GROUP):
        await store.judge(await asked(store, chat), 1, Verdict.RIGHT)
        await store.set_learning(chat.id, is_allowed=True)
    assert await store.forget(GROUP.id) == Forgotten(contexts=1, questions=1, verdicts=1)
    assert await store.forget(GROUP.id) == Forgotten(contexts=0, questions=0, verdicts=0)
    assert not await store.may_learn(GROUP)
    assert len(await store.judgements()) == 1


async def test_forgetting_takes_all_texts_in_all_topics_and_what_the_chat_has_chosen(store: Store) -> None:
    for topic_id in (0, 0, 11):
        await store.set_context(GROUP, "一二三", ANN, None, topic_id=topic_id, page_starts=(0, 2))
    await store.let_only_admins_set(GROUP.id, True)
    assert await store.forget(GROUP.id) == Forgotten(contexts=3, questions=0, verdicts=0)
    assert await store.contexts(GROUP.id, 11, 0, 9) == ([], 0)
    assert not await store.only_admins_set(GROUP.id)


async def test_a_choice_outlives_clear_and_follows_a_group_to_its_new_id(store: Store) -> None:
    await store.set_learning(GROUP.id, is_allowed=True)
    await store.judge(await asked(store, GROUP), 1, Verdict.RIGHT)
    await store.clear(GROUP.id)
    assert await store.may_learn(GROUP)
    moved = Chat(-9, "supergroup")
    await store.migrate_chat(GROUP.id, moved.id)
    assert await store.may_learn(moved)
    assert not await store.may_learn(GROUP)
