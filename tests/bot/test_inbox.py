"""No update is lost or handled twice, wherever the process ends: on both databases."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from telegram import Bot, Update
from telegram.error import InvalidToken

from bot.errors import DatabaseUnreachable
from bot.inbox import MAX_REPLAYS, Inbox, forget
from bot.store import Store
from bot.transport import MAX_WAITING_IN_CHAT, OrderInChat

PATIENCE_SECONDS = 30
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


def update_saying(update_id: int, text: str = "谁？\0\ud83d") -> Update:
    sender = {"id": 7, "is_bot": False, "first_name": "安"}
    message = {"message_id": 3, "date": 1, "chat": {"id": 7, "type": "private"}, "from": sender, "text": text}
    return Update.de_json({"update_id": update_id, "message": message})


class Telegram:
    """Hands out what has not been confirmed, then what comes, as getUpdates does."""

    def __init__(self, *update_ids: int) -> None:
        self.waiting = [update_saying(number) for number in update_ids]
        self.confirmed = asyncio.Event()
        self._more = asyncio.Event()

    def send(self, *update_ids: int) -> None:
        self.waiting += [update_saying(number) for number in update_ids]
        self._more.set()

    async def get_updates(self, offset: int, **_: Any) -> Sequence[Update]:
        self.waiting = [update for update in self.waiting if update.update_id >= offset]
        while not self.waiting:
            self.confirmed.set()
            self._more.clear()
            await self._more.wait()
        return list(self.waiting)


@asynccontextmanager
async def process(telegram: Telegram, store: Store) -> AsyncIterator["asyncio.Queue[Update]"]:
    """A bot's inbox from its start to a sudden end; what it has brought."""
    queue = asyncio.Queue[Update]()
    inbox = Inbox(cast(Bot, telegram), store, cast("asyncio.Queue[object]", queue))
    polling = asyncio.create_task(inbox.run())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield queue
    finally:
        polling.cancel()
        with suppress(asyncio.CancelledError):
            await polling


async def test_an_update_is_stored_before_it_is_confirmed_and_comes_again_until_it_was_handled(store: Store) -> None:
    telegram = Telegram(11, 12, 13)
    async with process(telegram, store) as queue:
        brought = [await queue.get() for _ in range(3)]
        await telegram.confirmed.wait()
        await forget(store, 12)
    assert telegram.waiting == []
    async with process(telegram, store) as queue:
        again = [await queue.get() for _ in range(2)]
        assert [update.to_dict() for update in again] == [brought[0].to_dict(), brought[2].to_dict()]
        for update in again:
            await forget(store, update.update_id)
    async with process(telegram, store) as queue:
        telegram.send(14)
        assert (await queue.get()).update_id == 14


async def test_what_comes_again_since_it_was_not_confirmed_is_not_handled_again(store: Store) -> None:
    async with process(Telegram(11, 12), store) as queue:
        for _ in range(2):
            await queue.get()
        await forget(store, 11)
    async with process(Telegram(11, 12, 13), store) as queue:  # Telegram never heard that they have come
        assert [(await queue.get()).update_id for _ in range(2)] == [12, 13]
        await asyncio.sleep(0.05)
        assert queue.empty()


async def test_what_has_been_handled_is_deleted(store: Store) -> None:
    telegram = Telegram(11, 12)
    async with process(telegram, store) as queue:
        for _ in range(2):
            await forget(store, (await queue.get()).update_id)
        assert await store.updates_left(LONG_AGO) == []
        telegram.send(13)
        await queue.get()
        assert await store.keep_updates({11: "{}", 13: "{}"}) == {11}, "only what came last is remembered"


async def test_an_update_that_ends_the_bot_each_time_is_given_up(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    telegram = Telegram(11)
    for _ in range(1 + MAX_REPLAYS):
        async with process(telegram, store) as queue:
            assert (await queue.get()).update_id == 11
    async with process(telegram, store) as queue:
        telegram.send(12)
        assert (await queue.get()).update_id == 12
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert errors == ["update 11 is given up: the bot has ended 4 times before it was handled"]


async def test_without_a_database_updates_are_handled_all_the_same(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(*_: object) -> Any:
        raise DatabaseUnreachable("it is away")

    monkeypatch.setattr("bot.inbox.FORGET_PAUSES_SECONDS", (0, 0))
    for name in ("keep_updates", "drop_update"):
        monkeypatch.setattr(store, name, refuse)
    async with process(Telegram(11), store) as queue:
        await forget(store, (await queue.get()).update_id)
    assert "1 updates could not be stored, a crash would lose them: it is away" in caplog.text


async def test_what_is_a_day_old_is_not_handled_any_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    telegram = Telegram(11)
    async with process(telegram, store) as queue:
        await queue.get()
    monkeypatch.setattr("bot.inbox.MAX_AGE", timedelta(0))
    async with process(telegram, store) as queue:
        telegram.send(12)
        assert (await queue.get()).update_id == 12
    assert [number for number, _, _ in await store.updates_left(LONG_AGO)] == [12]


async def test_nothing_is_fetched_before_what_is_left_is_known(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    telegram = Telegram(11)
    async with process(telegram, store) as queue:
        await queue.get()
    left = AsyncMock(side_effect=[DatabaseUnreachable("it is away"), [(11, 1, update_saying(11).to_json())]])
    monkeypatch.setattr(store, "updates_left", left)
    async with process(Telegram(11, 12), store) as queue:
        assert [(await queue.get()).update_id for _ in range(2)] == [11, 12]


async def test_what_is_typed_inline_is_not_kept(store: Store) -> None:
    sender = {"id": 7, "is_bot": False, "first_name": "安"}
    query = {"id": "1", "from": sender, "query": "谁？", "offset": ""}
    telegram = Telegram()
    async with process(telegram, store) as queue:
        telegram.waiting.append(Update.de_json({"update_id": 11, "inline_query": query}))
        telegram.send(12)
        assert [(await queue.get()).update_id for _ in range(2)] == [11, 12]
    assert [number for number, _, _ in await store.updates_left(LONG_AGO)] == [12]


async def test_a_revoked_token_ends_the_inbox(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    telegram = Telegram()

    async def refuse(*_: object, **__: object) -> Any:
        raise InvalidToken

    monkeypatch.setattr(telegram, "get_updates", refuse)
    with pytest.raises(InvalidToken):
        await Inbox(cast(Bot, telegram), store, asyncio.Queue()).run()


async def test_a_flood_in_one_chat_takes_so_much_room_and_is_dropped_beyond_it() -> None:
    forgotten: list[int] = []
    handled: list[int] = []
    may_go = asyncio.Event()

    async def note(update_id: int) -> None:
        forgotten.append(update_id)

    async def handle(update_id: int) -> None:
        await may_go.wait()
        handled.append(update_id)

    processor = OrderInChat(note)
    flood = [
        asyncio.create_task(processor.do_process_update(update_saying(number), handle(number)))
        for number in range(MAX_WAITING_IN_CHAT + 2)
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert forgotten == [MAX_WAITING_IN_CHAT, MAX_WAITING_IN_CHAT + 1]
    may_go.set()
    await asyncio.gather(*flood)
    assert handled == list(range(MAX_WAITING_IN_CHAT))
    assert sorted(forgotten) == list(range(MAX_WAITING_IN_CHAT + 2))
