"""Plays a conversation with the real bot and keeps what both sides wrote, for `render` to make a picture of.

A conversation is a TOML file in conversations/: `title` and `language` (and `group = true` for a group), then turns:

    says = "/ask 谁？"        what somebody writes; `name = "小林"` says who, where it is not you
    replies = true            the same, as a reply to the bot's last message
    presses = "English"       the button with this text, below the last message that has it
    hidden = true             played, but not shown

The bot runs with its bundled checkpoint against the Bot API server of the tests. What it sends is recorded as it is,
in the last version where it was edited; only the times are made up.
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

from tests.system.bot_api_server import BOT, TOKEN, BotApiServer, plain_text
from tests.system.bot_process import started

FOLDER = Path(__file__).parent
FIRST_MINUTE = 10 * 60 + 24
YOU = "你"
SENT = ("sendMessage", "sendDocument")


@dataclass
class RecordingServer(BotApiServer):
    """The tests' server, which also keeps every message by its id."""

    seen: dict[int, dict[str, Any]] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=lambda: count(100))

    def result(self, method: str, parameters: dict[str, Any]) -> object:
        result = super().result(method, parameters)
        if method in SENT and isinstance(result, dict):
            self.seen[result["message_id"]] = {
                "from": "bot",
                "html": parameters.get("text") or parameters.get("caption", ""),
                "buttons": texts_of_buttons(parameters),
                "data": data_of_buttons(parameters),
                "replies_to": parameters.get("reply_parameters", {}).get("message_id"),
            }
        elif method.startswith("editMessage"):
            message = self.seen[parameters["message_id"]]
            message["html"] = parameters.get("text", message["html"])
            message["buttons"], message["data"] = texts_of_buttons(parameters), data_of_buttons(parameters)
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
        self._shown: list[int] = []

    def play(self, turn: dict[str, Any]) -> None:
        known = set(self._server.seen)
        user = self._user(turn.get("name", YOU))
        if "presses" in turn:
            self._press(user, turn["presses"])
        else:
            self._say(user, turn["says"], is_reply=turn.get("replies", False), who=turn.get("name", YOU))
        self._wait(user)
        if not turn.get("hidden"):
            self._shown += [number for number in sorted(self._server.seen) if number not in known]

    def result(self) -> dict[str, Any]:
        shown = []
        for place, number in enumerate(self._shown):
            message = {name: value for name, value in self._server.seen[number].items() if name != "data"}
            minute = FIRST_MINUTE + place // 2
            shown.append({"id": number, **message, "time": f"{minute // 60}:{minute % 60:02d}"})
        heading = {name: self._conversation.get(name) for name in ("title", "subtitle", "language", "group")}
        return {**heading, "messages": shown}

    def _user(self, name: str) -> dict[str, Any]:
        if name not in self._users:
            user = {"id": next(self._server.numbers), "is_bot": False, "first_name": name}
            self._users[name] = user | {"language_code": self._conversation["language"]}
        return self._users[name]

    def _say(self, user: dict[str, Any], text: str, *, is_reply: bool, who: str) -> None:
        more: dict[str, Any] = {}
        if is_reply:
            number = max(number for number, message in self._server.seen.items() if message["from"] == "bot")
            more["reply_to_message"] = self._message(number)
        number = next(self._server.numbers)
        self._server.seen[number] = {
            "from": "you" if who == YOU else who,
            "html": escape(text, quote=False),
            "buttons": [],
            "replies_to": more["reply_to_message"]["message_id"] if more else None,
        }
        self._server.send(message_id=number, **{"from": user, "chat": self._chat, "text": text}, **more)
        self._server.reply_to(number)

    def _press(self, user: dict[str, Any], text: str) -> None:
        number, data = next(
            (number, message["data"][text])
            for number, message in reversed(self._server.seen.items())
            if text in message.get("data", {})
        )
        query = {"id": f"{next(self._server.numbers)}", "from": user, "chat_instance": "1", "data": data}
        self._server.send_update({"callback_query": {**query, "message": self._message(number)}})

    def _message(self, number: int) -> dict[str, Any]:
        """A message of the bot, as Telegram would hand it back."""
        known, here = self._server.seen, {"date": 1, "chat": self._chat}
        message = {"message_id": number, **here, "from": BOT, "text": plain_text(known[number]["html"])}
        if asked := known[number]["replies_to"]:
            sender = self._users.get(known[asked]["from"], self._users[YOU])
            question = {"message_id": asked, **here, "from": sender, "text": plain_text(known[asked]["html"])}
            message["reply_to_message"] = question
        return message

    def _wait(self, user: dict[str, Any]) -> None:
        """Updates of a chat are handled in order: once one more is answered, all before it are done."""
        number = self._server.send(**{"from": user, "chat": self._chat, "text": f"/status@{BOT['username']}"})
        self._server.reply_to(number)
        for sent, message in list(self._server.seen.items()):
            if message["replies_to"] == number:
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
