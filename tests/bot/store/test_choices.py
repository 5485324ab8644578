"""The store: what users and groups chose, and which chats the bot has left or refused."""

import asyncio
from datetime import UTC, datetime

from bot.store import Author, Chat, Standing, Store

USER_ID = 7_000_000_001  # wider than 32 bits
GROUP = Chat(id=-1_001_234_567_890_123, kind="supergroup", title="读书会")
THEN = datetime(2026, 11, 23, 10, 0, 0, tzinfo=UTC)


async def test_nothing_is_known_of_strangers(store: Store) -> None:
    assert await store.standing(USER_ID, GROUP.id) == Standing(None, None)
    assert await store.standing(None, None) == Standing(None, None)
    assert await store.only_admins_set(GROUP.id) is False


async def test_a_language_is_kept_and_can_be_given_back(store: Store) -> None:
    await store.set_language(USER_ID, "zh_Hant")
    await store.set_language(8, "en")
    assert (await store.standing(USER_ID, None)).language == "zh_Hant"
    await store.set_language(USER_ID, None)
    assert (await store.standing(USER_ID, None)).language is None
    assert (await store.standing(8, None)).language == "en"


async def test_who_may_set_outlives_a_clear(store: Store) -> None:
    await store.set_context(GROUP, "一。", Author(1, "安"), message_id=1)
    await store.let_only_admins_set(GROUP.id, True)
    await store.clear(GROUP.id)
    assert await store.only_admins_set(GROUP.id) is True
    await store.let_only_admins_set(GROUP.id, False)
    assert await store.only_admins_set(GROUP.id) is False


async def test_a_chat_that_was_left_is_known_until_the_bot_is_back(store: Store) -> None:
    await store.let_only_admins_set(GROUP.id, True)
    await store.note_membership(GROUP.id, THEN)
    assert (await store.standing(USER_ID, GROUP.id)).left_at == THEN
    await store.note_membership(GROUP.id, None)
    assert (await store.standing(USER_ID, GROUP.id)).left_at is None
    assert await store.only_admins_set(GROUP.id) is True


async def test_a_chat_is_refused_once_even_when_two_ask_at_the_same_time(store: Store) -> None:
    refusals = await asyncio.gather(*(store.refuse_once(GROUP.id) for _ in range(4)))
    assert sorted(refusals) == [False, False, False, True]
    assert await store.refuse_once(USER_ID) is True


async def test_a_group_that_becomes_a_supergroup_keeps_who_may_set(store: Store) -> None:
    await store.let_only_admins_set(-42, True)
    await store.migrate_chat(-42, GROUP.id)
    assert await store.only_admins_set(GROUP.id) is True
    assert await store.only_admins_set(-42) is False
    await store.let_only_admins_set(GROUP.id, False)
    await store.let_only_admins_set(-42, True)
    await store.migrate_chat(-42, GROUP.id)
    assert await store.only_admins_set(GROUP.id) is False  # what was chosen under the new id stays
