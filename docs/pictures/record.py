"""Plays a conversation with the real bot and keeps what both sides wrote, for `render` to make a picture of.

A conversation is a TOML file in conversations/: `title` and `language` (and `group = true` for a group), then turns:

    says = "/ask 谁？"        what somebody writes; `name = "小林"` says who, where it is not you
    replies = true            the same, as a reply to the bot's last message
    sends = "通知.pdf"        a PDF, made of `pages`, a list of texts
    presses = "English"       the button with this text, below the last message that has it
    note = "片刻之后"         a line between what was and what is: an edited message is shown once more below it
    hidden = true             played, but not shown

The bot runs with its bundled checkpoint against the Bot API server of the tests. What it sends is recorded as it is;
where it was edited without a `note`, in the last version. Only the times are made up.
`python -m docs.pictures.record NAME ...` plays those named, or all.
"""

import json
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from itertools import count
from pathlib import Path
from typing import Any

from tests.made_files import pdf
from tests.system.bot_api_server import BOT, TOKEN, BotApiServer, plain_text
from tests.system.bot_process import started

FOLDER = Path(__file__).parent
FIRST_MINUTE = 10 * 60 + 24
YOU = "你"


@dataclass
class RecordingServer(BotApiServer):
    """The tests' server, which also keeps every message by its id, in each of its versions."""

    seen: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(100))

    def result(self, method: str, parameters: dict[str, Any]) -> object:
        result = super().result(method, parameters)
        if method in ("sendMessage", "editMessageText") and isinstance(result, dict):
            versions = self.seen.setdefault(result["message_id"], [])
            answered = parameters.get("reply_parameters", {}).get("message_id")
            versions.append(
                {
                    "from": "bot",
                    "html": parameters["text"],
                    "buttons": texts_of_buttons(parameters),
                    "data": data_of_buttons(parameters),
                    "replies_to": versions[0]["replies_to"] if versions else answered,
                }
            )
        return result


class Recording:
    """A chat in which turns are played one after the other."""

    def __init__(self, server: RecordingServer, conversation: dict[str, Any]) -> None:
        self._server = server
        self._conversation = conversation
        self._is_group = conversation.get("group", False)
        self._users: dict[str, dict[str, Any]] = {}
        self._chat: dict[str, Any] = {"id": self._user(YOU)["id"], "type": "private", "first_name": YOU}
        if self._is_group:
            number = -1_001_000_000_000 - next(server.numbers)
            self._chat = {"id": number, "type": "supergroup", "title": conversation["title"]}
        self._shown: list[dict[str, Any]] = []

    def play(self, turn: dict[str, Any]) -> None:
        before = {number: len(versions) for number, versions in self._server.seen.items()}
        user = self._user(turn.get("name", YOU))
        if "presses" in turn:
            self._press(user, turn["presses"])
        elif "sends" in turn:
            self._send(user, turn.get("name", YOU), turn["sends"], turn["pages"])
        else:
            self._say(user, turn["says"], is_reply=turn.get("replies", False), who=turn.get("name", YOU))
        self._wait(user)
        if not turn.get("hidden"):
            self._show(before, turn.get("note"))

    def result(self) -> dict[str, Any]:
        shown, minute = [], FIRST_MINUTE
        for message in self._shown:
            if "note" not in message:
                minute += message["from"] != "bot"
                kept = {name: value for name, value in message.items() if name != "data"}
                shown.append({**kept, "time": f"{minute // 60}:{minute % 60:02d}"})
            else:
                shown.append(message)
        heading = {name: self._conversation.get(name) for name in ("title", "subtitle", "language", "group")}
        return {**heading, "messages": shown}

    def _show(self, before: dict[int, int], note: str | None) -> None:
        """Show what is new since `before`, which has the number of versions of each message."""
        for number, versions in sorted(self._server.seen.items()):
            known = before.get(number, 0)
            last = {"id": number, **versions[-1]}
            if known == len(versions):
                continue
            if note is None and known:
                self._shown = [last if message.get("id") == number else message for message in self._shown]
                continue
            if not known and len(versions) > 1 and note:
                self._shown.append({"id": number, **versions[-2]})
            if note and (len(versions) > 1 or last["from"] == "bot"):
                self._shown.append({"note": note})
                note = None
            self._shown.append(last)

    def _user(self, name: str) -> dict[str, Any]:
        if name not in self._users:
            user = {"id": next(self._server.numbers), "is_bot": False, "first_name": name}
            self._users[name] = user | {"language_code": self._conversation["language"]}
        return self._users[name]

    def _say(self, user: dict[str, Any], text: str, *, is_reply: bool, who: str) -> None:
        more: dict[str, Any] = {}
        if is_reply:
            number = max(number for number, versions in self._server.seen.items() if versions[0]["from"] == "bot")
            more["reply_to_message"] = self._message(number)
        self._deliver(user, who, {"html": escape(text, quote=False)}, text=text, **more)

    def _send(self, user: dict[str, Any], who: str, name: str, pages: list[str]) -> None:
        data = pdf(pages)
        file = {"name": name, "size": f"{len(data) / 1000:.1f} KB"}
        self._deliver(user, who, {"html": "", "file": file}, document=self._server.document(name, data))

    def _deliver(self, user: dict[str, Any], who: str, shown: dict[str, Any], **message: Any) -> None:
        """Have `user` send a message, keep what is `shown` of it, and wait for the reply."""
        number = next(self._server.numbers)
        replies_to = message["reply_to_message"]["message_id"] if "reply_to_message" in message else None
        kept = {"from": "you" if who == YOU else who, **shown, "buttons": [], "replies_to": replies_to}
        self._server.seen[number] = [kept]
        self._server.send(message_id=number, **{"from": user, "chat": self._chat}, **message)
        self._server.reply_to(number)

    def _press(self, user: dict[str, Any], text: str) -> None:
        number, data = next(
            (number, versions[-1]["data"][text])
            for number, versions in reversed(self._server.seen.items())
            if text in versions[-1].get("data", {})
        )
        more = {name: value for name, value in self._message(number).items() if name not in ("message_id", "chat")}
        self._server.tap(user, number, data, self._chat, **more)

    def _message(self, number: int) -> dict[str, Any]:
        """A message of the bot, as Telegram would hand it back."""
        known, here = self._server.seen, {"date": 1, "chat": self._chat}
        message = self._server.as_replied_to(number) | here
        if asked := known[number][0]["replies_to"]:
            sender = self._users.get(known[asked][0]["from"], self._users[YOU])
            question = {"message_id": asked, **here, "from": sender, "text": plain_text(known[asked][-1]["html"])}
            message["reply_to_message"] = question
        return message

    def _wait(self, user: dict[str, Any]) -> None:
        """Updates of a chat are handled in order: once one more is answered, all before it are done."""
        number = self._server.send(**{"from": user, "chat": self._chat, "text": f"/status@{BOT['username']}"})
        self._server.reply_to(number)
        for sent, versions in list(self._server.seen.items()):
            if versions[0]["replies_to"] == number:
                del self._server.seen[sent]


def texts_of_buttons(parameters: dict[str, Any]) -> list[list[str]]:
    return [[button["text"] for button in row] for row in keyboard(parameters)]


def data_of_buttons(parameters: dict[str, Any]) -> dict[str, str]:
    return {button["text"]: button.get("callback_data", "") for row in keyboard(parameters) for button in row}


def keyboard(parameters: dict[str, Any]) -> list[list[dict[str, str]]]:
    rows: list[list[dict[str, str]]] = parameters.get("reply_markup", {}).get("inline_keyboard", [])
    return rows


def record(conversations: list[Path]) -> None:
    """Play the conversations, one after the other with the same bot, and write what was said beside each."""
    with RecordingServer().running() as server, tempfile.TemporaryDirectory() as folder:
        assert isinstance(server, RecordingServer)
        settings = {"TELEGRAM_BOT_TOKEN": TOKEN, "TELEGRAM_API_URL": server.url}
        with started(Path(folder), **settings) as bot:
            for conversation in conversations:
                print(conversation.stem, flush=True)
                played = tomllib.loads(conversation.read_text(encoding="utf-8"))
                recording = Recording(server, played)
                for turn in played["turns"]:
                    recording.play(turn)
                recorded = json.dumps(recording.result(), ensure_ascii=False, indent=1)
                conversation.with_suffix(".json").write_text(recorded + "\n", encoding="utf-8")
            bot.stop()
    assert not server.violations, server.violations


if __name__ == "__main__":
    known = sorted((FOLDER / "conversations").glob("*.toml"))
    record([path for path in known if path.stem in sys.argv[1:] or not sys.argv[1:]])
