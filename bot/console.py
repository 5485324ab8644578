"""A terminal as a Telegram transport: the very same handlers, no token.

`TerminalRequest` stands where python-telegram-bot's HTTP client would, and answers the Bot API's calls from
memory; `Terminal` turns a line into an update; `messages` says what is played and typed. Nothing here knows
what a command does; what runs behind the handlers is opened by `bot.application`.
"""

import html
import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from time import time
from typing import Any

from telegram import Update
from telegram.request import BaseRequest, RequestData

from bot.errors import BotError
from bot.handlers.conversation import BotApplication, BotContext
from bot.texts import Texts

with suppress(ImportError):  # there is none on Windows
    import readline  # noqa: F401 - lets input() edit a line and go back to earlier ones

TOKEN = "0:terminal"  # noqa: S105 - python-telegram-bot asks for one, nobody checks it
USER_ID = 0  # nobody's on Telegram: the terminal may share its database with a bot there
BOT = {"id": 1, "is_bot": True, "first_name": "读问", "username": "duwen_bot"}
CHAT = {"id": USER_ID, "type": "private", "first_name": "terminal"}
PROMPT = "> "
FIRST_SESSION = 1_750_000_000  # no session began before, in seconds since 1970

_TAG = re.compile("</?[a-z]+(?: [^<>]*)?>")
_BLOCKQUOTE = re.compile("<blockquote>(.*?)</blockquote>", re.DOTALL)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_ANSI = {"<b>": "\x1b[1m", "</b>": "\x1b[22m", "<u>": "\x1b[4m", "</u>": "\x1b[24m"}
_BRACKETS = {"<u>": "【", "</u>": "】"}


class TerminalRequest(BaseRequest):
    """The Bot API in memory, as far as the bot uses it; messages are printed, and counted in `sent`.

    `buttons` are those that were shown last: the data of each, by its text, and the message below which they stand.
    """

    def __init__(self) -> None:
        self.sent = 0
        self.buttons: tuple[int, dict[str, str]] = 0, {}

    @property
    def read_timeout(self) -> None:
        return None

    async def initialize(self) -> None:
        """Nothing to connect to."""

    async def shutdown(self) -> None:
        """Nothing to close."""

    async def do_request(
        self, url: str, method: str, request_data: RequestData | None = None, *_: Any, **timeouts: Any
    ) -> tuple[int, bytes]:
        """Answer the call whose name ends `url`, as Telegram would: an HTTP status and JSON."""
        parameters = request_data.parameters if request_data else {}
        result: object = True
        match url.rpartition("/")[2]:
            case "getMe":
                result = BOT
            case "sendMessage":
                self.sent += 1
                result = self._print(self.sent, parameters)
            case "editMessageText":
                result = self._print(int(str(parameters["message_id"])), parameters)
            case "answerCallbackQuery":
                if notice := parameters.get("text"):
                    print(notice, end="\n\n", flush=True)
            case "getMyCommands":
                result = []
            case "deleteWebhook" | "sendChatAction" | "setMyCommands":
                pass
            case name:
                return 400, json.dumps({"ok": False, "description": f"a terminal knows no {name}"}).encode()
        return 200, json.dumps({"ok": True, "result": result}).encode()

    def _print(self, message_id: int, parameters: dict[str, Any]) -> dict[str, Any]:
        """Print a message and its buttons, each in brackets; returns it as Telegram would."""
        print(rendered(str(parameters["text"]), for_terminal=sys.stdout.isatty()))
        if shown := buttons(parameters.get("reply_markup")):
            self.buttons = message_id, shown
            print(" ".join(f"[{text}]" for text in shown))
        print(flush=True)
        return {"message_id": message_id, "date": int(time()), "chat": CHAT, "from": BOT}


class Terminal:
    """Someone at a terminal, in a private chat with the bot."""

    def __init__(self, application: BotApplication, request: TerminalRequest, language_code: str) -> None:
        self._application = application
        self._request = request
        self._user = {**CHAT, "is_bot": False, "language_code": language_code}
        # Above those of earlier sessions: the database knows the messages of this chat by their numbers.
        self._ids = count(int(10 * (time() - FIRST_SESSION)))
        self._said: dict[str, Any] | None = None
        self._has_failed = False
        application.add_error_handler(self._note_failure)

    async def say(self, text: str) -> bool:
        """Send `text` to the bot, or press the button that it names in brackets, and wait until that is done.

        Whether the bot replied, and without a failure.
        """
        sent_before = self._request.sent
        self._has_failed = False
        number = next(self._ids)
        # Four seconds apart: messages that come together may be one text that a client has split; lines never are.
        date = 4 * number
        said = {"message_id": number, "date": date, "chat": CHAT, "from": self._user, "text": text}
        update: dict[str, Any] = {"update_id": number, "message": said}
        message_id, shown = self._request.buttons
        is_press = text[:1] == "[" and text[-1:] == "]" and text[1:-1] in shown
        if is_press:
            below = {"message_id": message_id, "date": date, "chat": CHAT, "from": BOT}
            below |= {"reply_to_message": self._said} if self._said else {}
            press = {"id": f"{number}", "from": self._user, "chat_instance": "", "data": shown[text[1:-1]]}
            update = {"update_id": number, "callback_query": {**press, "message": below}}
        else:
            self._said = said
        await self._application.process_update(Update.de_json(update, self._application.bot))
        return (is_press or self._request.sent > sent_before) and not self._has_failed

    async def _note_failure(self, update: object, context: BotContext) -> None:
        self._has_failed = True


def speak_utf8() -> None:
    """Read and write UTF-8 whatever the locale says; bytes that are none are read as U+FFFD."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]


def read_script(file: Path) -> list[str]:
    """The messages of a script; blank lines and those that begin with # are none.

    Raises BotError when the file cannot be read.
    """
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BotError(f"Cannot play {file}: {error}") from error
    return list(joined(line for line in lines if line.strip() and not line.startswith("#")))


def messages(script: list[str] | None, texts: Texts) -> Iterator[str]:
    """What stands in the script, shown as if typed; then what is typed, unless a script is all there is."""
    for message in script or []:
        print(f"{PROMPT}{message}", flush=True)
        yield message
    if sys.stdin.isatty():
        print(
            texts.gettext(
                "Each line is a message to the bot; /help lists its commands. "
                "A line that ends in a backslash goes on in the next one; a button in brackets presses it. "
                "Ctrl-D ends."
            ),
            end="\n\n",
        )
    if script is None or sys.stdin.isatty():
        yield from typed()


def typed() -> Iterator[str]:
    """The messages that are typed, or piped in, until the end of input."""

    def lines() -> Iterator[str]:
        with suppress(EOFError):
            while True:
                yield input(PROMPT if sys.stdin.isatty() else "").removesuffix("\r")

    return joined(line for line in lines() if line.strip())


def joined(lines: Iterable[str]) -> Iterator[str]:
    """Messages from lines: a line that ends in a backslash goes on in the next one."""
    begun: list[str] = []
    for line in lines:
        begun.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            yield "\n".join(begun)
            begun = []
    if begun:
        yield "\n".join(begun)


def buttons(keyboard: object) -> dict[str, str]:
    """The buttons below a message: the data of each, by its text."""
    rows = keyboard.get("inline_keyboard", []) if isinstance(keyboard, dict) else []
    return {button["text"]: button["callback_data"] for row in rows for button in row}


def rendered(message: str, *, for_terminal: bool) -> str:
    """A message in Telegram's HTML as lines of text, highlighted by bold and underline, or else by 【】."""
    styles = _ANSI if for_terminal else _BRACKETS
    # Control characters could tell a terminal to do anything; the text is not ours.
    text = _CONTROL.sub("\ufffd", message)
    text = _BLOCKQUOTE.sub(lambda quote: re.sub("^", "│ ", quote[1], flags=re.MULTILINE), text)
    return html.unescape(_TAG.sub(lambda tag: styles.get(tag[0], ""), text))
