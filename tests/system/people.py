"""Who writes to the bot in these tests, and what most of them say."""

import re
from dataclasses import dataclass
from itertools import count
from typing import Any

from tests.system.bot_api_server import TOKEN, BotApiServer, Call

PARAGRAPH = (
    "勒布朗·詹姆斯是一位美国职业篮球运动员，现效力于洛杉矶湖人队。他身高203厘米，体重113公斤，"
    "司职小前锋/大前锋。詹姆斯出生于俄亥俄州阿克伦市。"
)
TEAM = "詹姆斯在哪个球队？"
# Which words the model picks is no matter here; tests/system/test_console.py has the right answers.
ANSWER = re.compile(r"(.+)\n\n.*\1.*\n第 \d+ [段页] · 置信度：[高低中等]+（[<>]?\d+%）", re.DOTALL)
ids = count(5000)


@dataclass(frozen=True)
class Person:
    """Someone who writes to the bot: in a private chat, or in the group `chat`."""

    server: BotApiServer
    user: dict[str, Any]
    chat: dict[str, Any]

    def says(self, text: str, kind: str = "message", **more: Any) -> int:
        """Send a message and return its id."""
        return self.sends(kind, text=text, **more)

    def sends(self, kind: str = "message", **more: Any) -> int:
        return self.server.send(kind, **{"from": self.user, "chat": self.chat, **more})

    def asks(self, text: str, **more: Any) -> str:
        """Send a message and return the text of the reply."""
        return self.server.reply_to(self.says(text, **more)).text

    def taps(self, message_id: int, data: str, pasted: int, text: str) -> None:
        """Tap a button below message `message_id` of the bot, the reply to `text`, which is message `pasted`."""
        mine = {"message_id": pasted, "date": 1, "chat": self.chat, "from": self.user, "text": text}
        self.server.tap(self.user, message_id, data, self.chat, text="?", reply_to_message=mine)

    def message(self, **content: Any) -> dict[str, Any]:
        """A message of this chat that another one can reply to."""
        return {"message_id": next(ids), "date": 0, "from": self.user, "chat": self.chat, **content}


def telegram(server: BotApiServer) -> dict[str, str]:
    """A bot's settings, to talk to `server`."""
    return {"TELEGRAM_BOT_TOKEN": TOKEN, "TELEGRAM_API_URL": server.url}


def private_chat(server: BotApiServer, language_code: str | None, user_id: int | None = None) -> Person:
    user_id = next(ids) if user_id is None else user_id
    user = {"id": user_id, "is_bot": False, "first_name": "Li <b>& Co", "language_code": language_code}
    return Person(server, user, {"id": user_id, "type": "private", "first_name": "Li"})


def in_group(person: Person) -> Person:
    return Person(person.server, person.user, {"id": -next(ids), "type": "supergroup", "title": "组 <1>"})


def is_to(call: Call, person: Person) -> bool:
    return bool(call.parameters.get("chat_id") == person.chat["id"])
