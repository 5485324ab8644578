"""Who is let in, whose inline query is read, and what is remembered for a moment: in one process, no Telegram."""

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from telegram import Update

from bot.handlers import remembering
from bot.handlers.admitting import is_allowed
from bot.handlers.remembering import GroupAdmins
from bot.settings import Settings
from tests.bot import test_handlers
from tests.bot.test_handlers import Bench, SlowReader, bench

ME, FRIEND, STRANGER, GROUP, OTHER_GROUP = 1, 2, 3, -10, -11


@dataclass
class CountingReader(SlowReader):
    """Keeps what it was asked, and tells when it begins to read."""

    asked: list[str] = field(default_factory=list)
    has_begun: threading.Event = field(default_factory=threading.Event)

    def forward(self, windows: Sequence[str]) -> Sequence[str]:
        self.has_begun.set()
        self.asked += windows
        return super().forward(windows)


@pytest.mark.parametrize(
    ("chats", "users", "chat_id", "user_id", "is_let_in"),
    [
        (set(), set(), OTHER_GROUP, STRANGER, True),
        (set(), {FRIEND}, OTHER_GROUP, FRIEND, True),
        (set(), {FRIEND}, STRANGER, STRANGER, False),
        (set(), {FRIEND}, ME, ME, True),  # whoever runs the bot
        ({GROUP}, set(), GROUP, STRANGER, True),
        ({GROUP}, set(), OTHER_GROUP, STRANGER, False),
        ({GROUP, FRIEND}, set(), FRIEND, FRIEND, True),
        ({GROUP, FRIEND}, set(), None, FRIEND, True),  # an inline query has no chat
        ({GROUP}, {FRIEND}, None, STRANGER, False),
        ({GROUP}, set(), None, None, False),
    ],
)
def test_who_is_listed_is_let_in_and_everyone_where_nobody_is(
    chats: set[int], users: set[int], chat_id: int | None, user_id: int | None, is_let_in: bool
) -> None:
    settings = Settings(_env_file=None, allowed_chat_ids=chats, allowed_user_ids=users, admin_user_ids={ME})
    assert is_allowed(settings, user_id, chat_id) is is_let_in


async def type_inline(desk: Bench, query: str, number: str) -> None:
    user = {"id": ME, "is_bot": False, "first_name": "Li", "language_code": "en"}
    inline = {"id": number, "from": user, "query": query, "offset": ""}
    update = Update.de_json({"update_id": int(number), "inline_query": inline}, desk.application.bot)
    await desk.application.process_update(update)


def answers(desk: Bench) -> list[dict[str, Any]]:
    return [parameters for name, parameters in desk.request.calls if name == "answerInlineQuery"]


async def test_an_outdated_inline_query_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_handlers, "SlowReader", CountingReader)
    async with bench(tmp_path) as desk:
        desk.reader.may_answer.set()
        await desk.say("/context 一。")
        await asyncio.gather(*(type_inline(desk, "谁是一呢"[:length], f"{length}") for length in range(1, 5)))
        assert isinstance(desk.reader, CountingReader)
        assert desk.reader.asked == ["谁是一呢"]
        (answer,) = answers(desk)
        assert answer["inline_query_id"] == "4"
        assert answer["results"][0]["title"] == "一"
        assert await desk.application.bot_data.store.questions_answered() == 0


async def test_an_inline_query_that_is_outdated_while_it_is_read_is_not_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_handlers, "SlowReader", CountingReader)
    async with bench(tmp_path) as desk:
        assert isinstance(desk.reader, CountingReader)
        await desk.say("/context 一。")
        reading = asyncio.create_task(type_inline(desk, "谁？", "1"))
        await asyncio.to_thread(desk.reader.has_begun.wait)
        later = asyncio.create_task(type_inline(desk, "", "2"))
        while desk.application.bot_data.latest_queries.is_latest(ME, 1):  # noqa: ASYNC110
            await asyncio.sleep(0)
        desk.reader.may_answer.set()
        await asyncio.gather(reading, later)
        assert [answer["inline_query_id"] for answer in answers(desk)] == ["2"]


async def test_a_long_inline_query_is_not_read(tmp_path: Path) -> None:
    async with bench(tmp_path, max_question_chars=3) as desk:
        await desk.say("/context 一。")
        await type_inline(desk, "谁是谁？", "1")
        assert answers(desk)[0]["button"]["text"] == "The question is too long"


async def test_an_abstention_gives_nothing_to_send(tmp_path: Path) -> None:
    async with bench(tmp_path) as desk:
        desk.reader.may_answer.set()
        desk.reader.finds_answers = False
        await desk.say("/context 一。")
        await type_inline(desk, "谁？", "1")
        (answer,) = answers(desk)
        assert answer["results"] == []
        assert answer["button"]["text"] == "The answer is not in your paragraph"


async def test_a_user_s_language_is_spoken_when_the_database_fails_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path, migrated=False) as desk:
        await desk.say("/help", language_code="zh-TW")
        assert "設定段落" in desk.request.texts()[-1]
        assert "neither language nor membership are known" in caplog.text


async def test_a_failure_is_told_in_the_language_that_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(chat_id: int) -> None:
        raise RuntimeError("out of the blue")

    async with bench(tmp_path) as desk:
        await desk.say("/language 繁體中文")
        monkeypatch.setattr(desk.application.bot_data.store, "current_context", fail)
        await desk.say("/context")
        assert desk.request.texts()[-1].startswith("我這裡出了點問題")


async def test_who_may_not_set_may_look_at_the_list_but_neither_switch_nor_rename_nor_delete(tmp_path: Path) -> None:
    async with bench(tmp_path) as desk:
        await desk.say("/context 一。", chat_id=GROUP)
        await desk.say("/context 二。", chat_id=GROUP)
        await desk.say("/contexts", chat_id=GROUP)
        buttons = list(desk.buttons().values())
        await desk.application.bot_data.store.let_only_admins_set(GROUP, True)
        for data in buttons:
            assert (await desk.press(data, chat_id=GROUP)).startswith("In this group only admins change what I read")
        assert await desk.press("library:l:0:0", chat_id=GROUP) == ""
        listed, number = await desk.application.bot_data.store.contexts(GROUP, 0, 0, 9)
        assert (number, listed[0].title, listed[0].is_current) == (2, "二。", True)


async def test_no_more_admins_are_remembered_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    class Telegram:
        lookups = 0

        async def get_chat_member(self, chat_id: int, user_id: int) -> Any:
            self.lookups += 1
            return type("Member", (), {"status": "creator", "OWNER": "creator", "ADMINISTRATOR": "administrator"})

    monkeypatch.setattr(remembering, "MAX_ADMINS_REMEMBERED", 2)
    telegram, admins = Telegram(), GroupAdmins()
    for user_id in (1, 1, 2, 3, 3, 1):
        assert await admins.include(telegram, GROUP, user_id)  # type: ignore[arg-type]
    assert telegram.lookups == 4
    monkeypatch.setattr(remembering, "monotonic", lambda: float("inf"))
    assert await admins.include(telegram, GROUP, 1)  # type: ignore[arg-type]
    assert telegram.lookups == 5
