"""Handlers at work in one process: the terminal's transport, a real store and a real engine.

Only the reader is made up, for it has to be slow or wrong at will. What the whole program says on Telegram is tested in
tests/system.
"""

import asyncio
import json
import logging
import re
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, cast
from unittest.mock import AsyncMock, Mock

import pytest
import torch
from telegram import Update
from telegram.error import RetryAfter
from telegram.request import RequestData

from bot.application import build_application, offer_commands
from bot.console import BOT, TOKEN, TerminalRequest
from bot.errors import StoreError
from bot.handlers import operating
from bot.handlers.conversation import COMMAND_NAMES, BotApplication, Flaw, Parts, command_in, flaw_of
from bot.handlers.introducing import ADMIN_COMMANDS, COMMANDS, GROUP_ADMIN_COMMANDS
from bot.settings import Settings
from bot.store import Store
from bot.store.migrating import migrate
from bot.transport import OrderInChat, PatientRateLimiter
from qa_engine import Answer, Ask, Engine, Reader, Reading
from qa_engine.reloading import CheckpointWatcher, Loaded, Refused

ids = count(1)


@dataclass
class SlowReader:
    """Answers with the context's first characters, one after the other, but not before it may."""

    may_answer: threading.Event = field(default_factory=threading.Event)
    finds_answers: bool = True
    scores: tuple[float, ...] = (0.5,)
    name: str = "slow"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    dtype: torch.dtype = torch.float32
    contexts: Mock = field(default_factory=Mock)

    def encode(self, ask: Ask) -> "EncodedSlowly":
        return EncodedSlowly(ask, [ask.question])

    def forward(self, windows: Sequence[str]) -> Sequence[str]:
        self.may_answer.wait()
        return windows

    def decode(self, encoded: "EncodedSlowly", spans: Sequence[str]) -> Reading:
        context = encoded.ask.context
        answers = tuple(Answer(context[at], at, at + 1, score) for at, score in enumerate(self.scores))
        return Reading(answers, 0.5, self.finds_answers, checkpoint=self.name)


@dataclass(frozen=True)
class EncodedSlowly:
    ask: Ask
    windows: list[str]


class RecordingRequest(TerminalRequest):
    """The terminal's transport, which also keeps every call, and refuses those that `refuse` picks."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.has_call = asyncio.Condition()
        self.refuse: Callable[[str, dict[str, Any]], bool] = lambda method, parameters: False

    async def do_request(
        self, url: str, method: str, request_data: RequestData | None = None, *_: Any, **timeouts: Any
    ) -> tuple[int, bytes]:
        name = url.rpartition("/")[2]
        parameters = dict(request_data.parameters) if request_data else {}
        async with self.has_call:
            self.calls.append((name, parameters))
            self.has_call.notify_all()
        if self.refuse(name, parameters):
            return 403, b'{"ok": false, "description": "Forbidden: bot was blocked by the user"}'
        match name:
            case "editMessageText":
                message = {"message_id": parameters["message_id"], "date": 0, "chat": {"id": 1, "type": "private"}}
                return 200, json.dumps({"ok": True, "result": message}).encode()
            case "getChatMember":
                member = {"status": "member", "user": {"id": parameters["user_id"], "is_bot": False, "first_name": "?"}}
                return 200, json.dumps({"ok": True, "result": member}).encode()
            case "answerCallbackQuery":
                return 200, b'{"ok": true, "result": true}'
        return await super().do_request(url, method, request_data)

    def texts(self) -> list[str]:
        return [parameters["text"] for name, parameters in self.calls if name == "sendMessage"]

    async def wait_for(self, method: str) -> None:
        async with self.has_call:
            await self.has_call.wait_for(lambda: any(name == method for name, _ in self.calls))


@dataclass(frozen=True)
class Bench:
    application: BotApplication
    request: RecordingRequest
    reader: SlowReader

    async def say(
        self,
        text: str,
        chat_id: int = 1,
        language_code: str = "en",
        user_id: int = 1,
        reply_to: int | None = None,
    ) -> None:
        chat = {"id": chat_id, "type": "private" if chat_id > 0 else "group", "first_name": "Li"}
        user = {"id": user_id, "is_bot": False, "first_name": "Li", "language_code": language_code}
        number = next(ids)
        message = {"message_id": number, "date": 0, "chat": chat, "from": user, "text": text}
        if reply_to is not None:
            link = re.search('href="([^"]+)"', self.request.texts()[reply_to - 1])
            entities = [{"type": "text_link", "offset": 0, "length": 1, "url": link[1]}] if link else []
            replied_to = {"message_id": reply_to, "date": 0, "chat": chat, "from": BOT, "text": "?"}
            message["reply_to_message"] = {**replied_to, "entities": entities}
        update = Update.de_json({"update_id": number, "message": message}, self.application.bot)
        await self.application.process_update(update)

    async def press(self, data: str, message_id: int = 1, chat_id: int = 1, user_id: int = 1) -> str:
        """Press a button with that data below a message of the bot; returns what is told in passing."""
        chat = {"id": chat_id, "type": "private" if chat_id > 0 else "group", "first_name": "Li"}
        user = {"id": user_id, "is_bot": False, "first_name": "Li", "language_code": "en"}
        message = {"message_id": message_id, "date": 1, "chat": chat, "from": BOT, "text": "?"}
        query = {"id": str(next(ids)), "from": user, "chat_instance": "1", "message": message, "data": data}
        update = Update.de_json({"update_id": next(ids), "callback_query": query}, self.application.bot)
        await self.application.process_update(update)
        [answer] = [call for name, call in self.request.calls if call.get("callback_query_id") == query["id"]]
        return str(answer.get("text", ""))

    def buttons(self) -> dict[str, str]:
        """The data of each button below the message that was sent or edited last, by its label."""
        (*_, last) = (call for name, call in self.request.calls if name in ("sendMessage", "editMessageText"))
        rows = last.get("reply_markup", {}).get("inline_keyboard", [])
        return {button["text"]: button["callback_data"] for row in rows for button in row}

    def shown(self) -> str:
        """The text of the message that was sent or edited last."""
        return [call["text"] for name, call in self.request.calls if name in ("sendMessage", "editMessageText")][-1]


@asynccontextmanager
async def bench(folder: Path, *, max_waiting: int = 9, migrated: bool = True, **settings: Any) -> AsyncIterator[Bench]:
    database_url = f"sqlite+aiosqlite:///{folder / 'duwen.db'}"
    if migrated:
        await migrate(database_url)
    known = Settings(_env_file=None, telegram_bot_token=TOKEN, database_url=database_url, **settings)
    reader = SlowReader()
    store = Store(database_url)
    request = RecordingRequest()
    async with Engine(cast(Reader, reader), max_waiting=max_waiting) as engine:
        watcher = CheckpointWatcher(engine, folder / "checkpoints")
        application = build_application(Parts(known, store, engine, watcher), request)
        await application.initialize()
        try:
            yield Bench(application, request, reader)
        finally:
            reader.may_answer.set()
            await application.shutdown()
            await store.close()


async def test_too_many_waiting_questions_are_told_kindly(tmp_path: Path) -> None:
    async with bench(tmp_path, max_waiting=0) as desk:
        await desk.say("/context 一。")
        await desk.say("谁？")
        assert desk.request.texts()[-1].startswith("Too many questions are waiting")


async def test_a_question_that_takes_too_long_is_given_up_kindly(tmp_path: Path) -> None:
    async with bench(tmp_path, ask_timeout_seconds=0.01) as desk:
        await desk.say("/context 一。")
        await desk.say("谁？")
        assert desk.request.texts()[-1].startswith("Reading took too long")


async def test_typing_is_shown_while_the_model_works_long(tmp_path: Path) -> None:
    async with bench(tmp_path) as desk:
        await desk.say("/context 一。")
        asking = asyncio.create_task(desk.say("谁？"))
        await desk.request.wait_for("sendChatAction")
        desk.reader.may_answer.set()
        await asking
        assert desk.request.calls[-1][0] == "sendMessage"


async def test_typing_is_not_shown_for_a_quick_answer(tmp_path: Path) -> None:
    async with bench(tmp_path) as desk:
        desk.reader.may_answer.set()
        await desk.say("/context 一。")
        await desk.say("谁？")
        assert "sendChatAction" not in dict(desk.request.calls)
        assert desk.request.texts()[-1] == (
            "<b>一</b>\n\n<blockquote><b><u>一</u></b>。</blockquote>\nParagraph 1 · Confidence: fair (50%)"
        )


async def test_a_question_that_the_paragraph_does_not_answer_is_told_so_and_counts_as_answered(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as desk:
        desk.reader.may_answer.set()
        desk.reader.finds_answers = False
        await desk.say("/context 一。")
        await desk.say("谁？", language_code="zh")
        assert desk.request.texts()[-1].startswith("<b>段落中无法找到答案</b>\n")
        assert await desk.application.bot_data.store.questions_answered() == 1


async def test_a_reload_in_a_group_is_answered_there(tmp_path: Path) -> None:
    async with bench(tmp_path, admin_user_ids={7}) as desk:
        broken = tmp_path / "checkpoints" / "2099-01-01"
        broken.mkdir(parents=True)
        (broken / "manifest.json").write_text("{")
        await desk.say("/reload", chat_id=-1, user_id=7)
        assert desk.request.texts()[-1].startswith("The checkpoint <b>2099-01-01</b> was refused: manifest.json")
        await desk.say("/reload", chat_id=-1, user_id=7)
        assert desk.request.texts()[-1] == "There is no new checkpoint. <b>slow</b> goes on reading."


async def test_a_chat_that_is_cleared_while_a_question_is_read_gets_its_answer_and_leaves_no_trace(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as desk:
        await desk.say("/context 一。")
        asking = asyncio.create_task(desk.say("谁？"))
        await desk.request.wait_for("sendChatAction")
        await desk.say("/clear")
        desk.reader.contexts.clear.assert_called_once_with()
        desk.reader.may_answer.set()
        await asking
        assert desk.request.texts()[-1].startswith("<b>一</b>")
        assert await desk.application.bot_data.store.questions_answered() == 0


async def test_a_failure_is_told_with_the_reference_under_which_the_log_has_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path, migrated=False) as desk:
        await desk.say("/context 秘密的段落。")
        reference = re.search("<code>([0-9a-f]{8})</code>$", desk.request.texts()[-1])
        assert reference
        errors = [record for record in caplog.records if record.levelno == logging.ERROR]
        assert [record.getMessage() for record in errors] == [f"error {reference[1]} in chat 1"]
        assert errors[0].exc_info
        assert "秘密" not in caplog.text


async def test_nobody_is_let_in_because_the_refusal_cannot_be_delivered(tmp_path: Path) -> None:
    async with bench(tmp_path, allowed_user_ids={7}) as desk:
        store = desk.application.bot_data.store
        await desk.say("/context 一。", chat_id=-1, user_id=7)
        desk.request.refuse = lambda method, parameters: True
        await desk.say("/context 二。")
        assert await store.current_context(1) is None
        await desk.press("library:x:1:0", chat_id=-1)
        context = await store.current_context(-1)
        assert context and context.text == "一。"


async def test_nobody_is_let_in_because_the_store_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise StoreError("no space left")

    async with bench(tmp_path, allowed_user_ids={7}) as desk:
        store = desk.application.bot_data.store
        await store.note_membership(1, datetime(1960, 1, 1, tzinfo=UTC))
        monkeypatch.setattr(store, "note_membership", fail)
        await desk.say("/context 二。")
        assert await store.current_context(1) is None


async def test_who_is_too_fast_is_not_heard_even_where_that_cannot_be_told(tmp_path: Path) -> None:
    async with bench(tmp_path, max_user_messages_a_minute=1) as desk:
        await desk.say("/context 一。")
        desk.request.refuse = lambda method, parameters: True
        await desk.say("/context 二。")
        await desk.press("library:x:1:0")
        context = await desk.application.bot_data.store.current_context(1)
        assert context and context.text == "一。"


async def test_a_name_is_told_in_passing_as_it_is(tmp_path: Path) -> None:
    async with bench(tmp_path) as desk:
        await desk.say("/context R&D <部门>")
        await desk.say("/context 二。")
        assert await desk.press("library:s:1:0") == "From now on I read: R&D <部门>"


async def test_admins_are_told_of_checkpoints_in_their_language(tmp_path: Path) -> None:
    async with bench(tmp_path, admin_user_ids={7, 8}) as desk:
        await desk.say("/status", chat_id=8, user_id=8, language_code="en")
        desk.request.calls.clear()
        await operating.announce(desk.application, Refused("2026-11-23", "sha256 of model.safetensors is <wrong>"))
        await operating.announce(desk.application, Loaded("2026-11-24"))
        told: dict[int, list[str]] = {7: [], 8: []}
        for _, parameters in desk.request.calls:
            told[parameters["chat_id"]].append(parameters["text"])
        assert told[7][0].startswith("检查点 <b>2026-11-23</b> 未被采用：sha256 of model.safetensors is &lt;wrong&gt;")
        assert told[8][0].startswith("The checkpoint <b>2026-11-23</b> was refused")
        assert told[7][1].startswith("检查点 <b>2026-11-24</b> 已载入")


async def test_an_admin_who_cannot_be_told_does_not_keep_others_from_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path, admin_user_ids={7, 8}) as desk:
        desk.request.refuse = lambda method, parameters: parameters.get("chat_id") == 7
        await operating.announce(desk.application, Loaded("2026-11-24"))
        assert {parameters["chat_id"] for name, parameters in desk.request.calls if name == "sendMessage"} == {7, 8}
        assert "could not tell admin 7" in caplog.text


async def test_a_command_menu_that_is_refused_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with bench(tmp_path) as desk:
        desk.request.refuse = lambda method, parameters: method == "setMyCommands"
        await offer_commands(desk.application)
        assert caplog.text.count("no command menu for") == 6
        assert caplog.text.count("no description in") == 2


async def test_updates_of_one_chat_wait_for_each_other_and_others_do_not() -> None:
    forget = AsyncMock()
    processor = OrderInChat(forget)
    may_go = asyncio.Event()
    done: list[str] = []

    async def handle(name: str, *, waits: bool) -> None:
        if waits:
            await may_go.wait()
        done.append(name)

    def update_in(chat_id: int) -> Update:
        message = {"message_id": 1, "date": 0, "chat": {"id": chat_id, "type": "private"}}
        return Update.de_json({"update_id": 1, "message": message})

    first = asyncio.create_task(processor.process_update(update_in(1), handle("first", waits=True)))
    second = asyncio.create_task(processor.process_update(update_in(1), handle("second", waits=False)))
    await processor.process_update(update_in(2), handle("other chat", waits=False))
    assert done == ["other chat"]
    assert forget.await_count == 1
    may_go.set()
    await asyncio.gather(first, second)
    assert forget.await_count == 3
    assert done == ["other chat", "first", "second"]


async def test_a_chat_that_has_to_pause_keeps_no_other_waiting() -> None:
    limiter = PatientRateLimiter()
    await limiter.initialize()
    late = AsyncMock(side_effect=[RetryAfter(1), "late"])

    async def send(callback: AsyncMock, chat_id: int) -> Any:
        return await limiter.process_request(callback, (), {}, "sendMessage", {"chat_id": chat_id}, None)

    first = asyncio.create_task(send(late, 7))
    await asyncio.sleep(0.1)
    assert await asyncio.wait_for(send(AsyncMock(return_value="at once"), 8), 0.5) == "at once"
    assert not first.done()
    assert await first == "late"


@pytest.mark.parametrize(
    ("text", "name", "username", "payload"),
    [
        ("/ask 谁？", "ask", None, "谁？"),
        ("/ASK@Some_Bot\n 谁？ ", "ask", "Some_Bot", "谁？ "),
        ("/ask詹姆斯", "ask", None, "詹姆斯"),
        ("/context\u3000\u3000缩进", "context", None, "缩进"),
        ("/ask@中文", "ask", None, "@中文"),
        ("/start", "start", None, ""),
        ("/ask2016年谁夺冠？", "ask", None, "2016年谁夺冠？"),
        ("/ContextNBA-总决赛 2016", "context", None, "NBA-总决赛 2016"),
        ("/contexts谁", "contexts", None, "谁"),
        ("/contexts2谁", "contexts2", None, "谁"),
        ("/clear_all缓存", "clear_all", None, "缓存"),
        ("/asking", "asking", None, ""),
        ("/ask2 谁？", "ask2", None, "谁？"),
        ("/ask2\u3000谁？", "ask2", None, "谁？"),
        ("/ask2@other_bot谁？", "ask2", "other_bot", "谁？"),
        ("/play2谁", "play2", None, "谁"),
    ],
)
def test_a_command_is_its_name_and_what_follows(text: str, name: str, username: str | None, payload: str) -> None:
    command = command_in(text)
    assert command
    assert (command.name, command.username, command.payload) == (name, username, payload)


def test_every_command_is_known_where_commands_are_read() -> None:
    assert set(COMMAND_NAMES) == {*COMMANDS, *GROUP_ADMIN_COMMANDS, *ADMIN_COMMANDS}


@pytest.mark.parametrize("text", ["", "问 /ask", "/", "//ask", "/？", " /ask"])
def test_other_texts_are_no_commands(text: str) -> None:
    assert command_in(text) is None


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("", Flaw.EMPTY),
        (" \t\n\u3000\u00a0", Flaw.EMPTY),
        ("\ufffd\ufffd", Flaw.INVISIBLE),
        ("\x07\u200b\u2060", Flaw.INVISIBLE),
        ("😀👍🏽🇨🇳", Flaw.WORDLESS),
        ("1️⃣#️⃣", Flaw.WORDLESS),
        ("。，！", Flaw.WORDLESS),
        ("5", None),
        ("何", None),
        ("😀𠮷", None),
        ("Ⅷ", None),
    ],
)
def test_a_text_is_read_only_when_it_has_a_letter_or_a_number(text: str, flaw: Flaw | None) -> None:
    assert flaw_of(text) is flaw


async def test_the_parts_of_a_paste_are_joined_as_they_were_before_the_client_cut_them(tmp_path: Path) -> None:
    """At a line's end, which it trims; in a line without a blank; behind a sign in such a line."""
    async with bench(tmp_path) as desk:
        parts = ["一" * 2049, "二" * 4096, "三" * 2100 + "3.", "14"]
        await desk.say(f"/context {parts[0]}")
        for part in parts[1:]:
            await desk.say(part)
        paragraph = await desk.application.bot_data.store.current_context(1)
        assert paragraph
        assert paragraph.text == f"{parts[0]}\n{parts[1]}{parts[2]}{parts[3]}"
        assert desk.shown().startswith("Your text came in 4 messages, and I have joined them. Characters: 8,250.")


async def test_a_part_that_is_joined_is_no_question_even_where_that_cannot_be_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench(tmp_path) as desk:
        desk.reader.may_answer.set()
        await desk.say("/context " + "一" * 4000)
        desk.request.refuse = lambda method, parameters: method == "editMessageText"
        with caplog.at_level(logging.INFO):
            await desk.say("二" * 500)
        assert "chat 1 does not let the bot write" in caplog.text
        assert len(desk.request.texts()) == 1
        store = desk.application.bot_data.store
        assert await store.questions_answered() == 0
        paragraph = await store.current_context(1)
        assert paragraph
        assert len(paragraph.text) == 4501


@pytest.mark.parametrize("more", ["/append 二。", "二" * 500])
async def test_an_edit_of_a_paragraph_that_has_grown_since_drops_nothing(tmp_path: Path, more: str) -> None:
    async with bench(tmp_path) as desk:
        text, store = "/context " + "一" * 4087, desk.application.bot_data.store
        await desk.say(text)
        first = await store.current_context(1)
        await desk.say(more)
        grown = await store.current_context(1)
        assert first
        chat = {"id": 1, "type": "private", "first_name": "Li"}
        user = {"id": 1, "is_bot": False, "first_name": "Li", "language_code": "en"}
        edited = {"message_id": first.message_id, "date": 0, "edit_date": 1, "chat": chat, "from": user, "text": text}
        update = {"update_id": next(ids), "edited_message": edited}
        await desk.application.process_update(Update.de_json(update, desk.application.bot))
        assert desk.request.texts()[-1].startswith("What you added before your edit stays as it was")
        assert await store.current_context(1) == grown
