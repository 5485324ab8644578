"""A Bot API server on this machine, as strict as Telegram's: what the tests talk to the bot through.

It hands out updates to long polls, records every call, refuses what Telegram would refuse (and keeps a list
of it), and fails on command. It knows nothing of this bot but its token.
"""

import json
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, repeat
from typing import Any
from urllib.parse import parse_qsl

TOKEN = "123456789:AAE-wrong_hands-must_never_see_this"
BOT: dict[str, Any] = {"id": 123456789, "is_bot": True, "first_name": "读问", "username": "duwen_test_bot"}
BOT |= {"can_read_all_group_messages": False, "supports_inline_queries": True}
WAIT_SECONDS = 300

_TAG = re.compile(r'<(/?)([a-z-]+)((?: [a-z-]+(?:="[^"<>]*")?)*)>')
_TAGS = {"b", "strong", "i", "em", "u", "ins", "s", "strike", "del", "span", "tg-spoiler", "a", "tg-emoji"}
_TAGS |= {"code", "pre", "blockquote"}
_ENTITY = re.compile(r"&(?:lt|gt|amp|quot|#\d+|#x[0-9a-fA-F]+);")


@dataclass(frozen=True)
class Call:
    """A method that the bot called, its parameters, when (monotonic seconds), and the answer's status."""

    method: str
    parameters: dict[str, Any]
    seconds: float
    status: int
    message_id: int | None = None

    @property
    def text(self) -> str:
        """The text of a message as a user sees it."""
        return plain_text(self.parameters["text"])

    @property
    def replies_to(self) -> int | None:
        message_id: int | None = self.parameters.get("reply_parameters", {}).get("message_id")
        return message_id


@dataclass(frozen=True)
class Fault:
    """How a call fails: with an HTTP status, or with silence, or with a closed connection."""

    status: int = 500
    retry_after_seconds: int | None = None
    silent_seconds: float = 0
    is_dropped: bool = False


class Refused(Exception):
    """What Telegram would answer with 400."""


class Harmless(Refused):
    """What is refused, but is no fault of the bot's: a button was pressed twice, a file is gone."""


@dataclass
class BotApiServer:
    """`running()` starts one. All waiting is for a condition, and fails after `WAIT_SECONDS`.

    `messages`: what each message of the bot shows by now, as the parameters of its last sending or editing.
    `files`: what can be downloaded, by file id; a number stands for that many zeros. `group_admins`: chat and user.
    `shown`: menus and descriptions.
    """

    calls: list[Call] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    url: str = ""
    token_is_revoked: bool = False
    messages: dict[int, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes | int] = field(default_factory=dict)
    delivered: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    group_admins: set[tuple[int, int]] = field(default_factory=set)
    shown: dict[str, Any] = field(default_factory=dict)
    _updates: dict[int, dict[str, Any]] = field(default_factory=dict)
    _faults: defaultdict[str, deque[Fault]] = field(default_factory=lambda: defaultdict(deque))
    _ids: Iterator[int] = field(default_factory=lambda: count(1000))
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _is_closed: bool = False

    def send(self, kind: str = "message", **message: Any) -> int:
        """Hand the bot a message (or an `edited_message`); returns its id."""
        message_id: int = message.setdefault("message_id", next(self._ids))
        message.setdefault("date", int(time.time()))
        self.send_update({kind: message})
        return message_id

    def send_update(self, update: dict[str, Any]) -> None:
        with self._changed:
            number = next(self._ids)
            self._updates[number] = {"update_id": number, **update}
            self._changed.notify_all()

    def document(self, name: str, data: bytes | int, announced_bytes: int | None = None) -> dict[str, Any]:
        """A file to send: what a message has under `document`."""
        file_id = f"file-{next(self._ids)}"
        self.files[file_id] = data
        if announced_bytes is None:
            announced_bytes = data if isinstance(data, int) else len(data)
        return {"file_id": file_id, "file_unique_id": file_id, "file_name": name, "file_size": announced_bytes}

    def press(self, user: dict[str, Any], message_id: int, label: str, chat: dict[str, Any]) -> Call:
        """Tap the button of that message whose label begins so; returns how the bot acknowledged it."""
        rows = self.messages[message_id].get("reply_markup", {}).get("inline_keyboard", [])
        (data,) = (button["callback_data"] for row in rows for button in row if button["text"].startswith(label))
        return self.tap(user, message_id, data, chat)

    def tap(self, user: dict[str, Any], message_id: int, data: str, chat: dict[str, Any], **more: Any) -> Call:
        """Tap a button of a message of the bot; returns how the bot acknowledged it."""
        message = {"message_id": message_id, "date": int(time.time()), "chat": chat, "from": BOT, **more}
        query_id = f"tap-{next(self._ids)}"
        query = {"id": query_id, "from": user, "message": message, "data": data, "chat_instance": "1"}
        self.send_update({"callback_query": query})
        return self.wait_for(
            lambda call: call.method == "answerCallbackQuery" and call.parameters["callback_query_id"] == query_id
        )

    def as_replied_to(self, message_id: int) -> dict[str, Any]:
        """A message of the bot as it comes back when a user replies to it: its text, and the links in that.

        All but its chat, which only the caller knows.
        """
        html = self.messages[message_id]["text"]
        entities = [
            {"type": "text_link", "offset": 0, "length": 1, "url": url} for url in re.findall('href="([^"]+)"', html)
        ]
        return {"message_id": message_id, "date": 0, "from": BOT, "text": plain_text(html), "entities": entities}

    def fail(self, method: str, *faults: Fault) -> None:
        """Let the next calls of `method` fail, one after the other."""
        with self._changed:
            self._faults[method].extend(faults)

    def wait_for(self, is_fit: Callable[[Call], bool]) -> Call:
        """The first call, made or still to come, that is fit."""
        return self.wait_for_many(is_fit, 1)[0]

    def wait_for_many(self, is_fit: Callable[[Call], bool], number: int) -> list[Call]:
        """The first `number` calls that are fit."""
        with self._changed:
            self._changed.wait_for(lambda: len(list(filter(is_fit, self.calls))) >= number, WAIT_SECONDS)
            fit = list(filter(is_fit, self.calls))
        if len(fit) < number:
            raise AssertionError(f"{len(fit)} of {number} such calls; the last were {self.calls[-5:]}")
        return fit[:number]

    def reply_to(self, message_id: int) -> Call:
        """The message that the bot sent, successfully, as a reply to `message_id`."""
        return self.wait_for(lambda call: is_sent(call) and call.replies_to == message_id)

    def wait_until_confirmed(self) -> None:
        """Wait until the bot has confirmed every update."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self._updates, WAIT_SECONDS):
                raise AssertionError(f"not confirmed: {list(self._updates)}")

    @contextmanager
    def running(self, port: int = 0) -> Iterator["BotApiServer"]:
        with ThreadingHTTPServer(("127.0.0.1", port), handler_for(self)) as http:
            self.url = f"http://127.0.0.1:{http.server_port}"
            thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
            thread.start()
            try:
                yield self
            finally:
                with self._changed:
                    self._is_closed = True
                    self._changed.notify_all()
                http.shutdown()
                thread.join()
            assert self.violations == [], self.violations

    def take_fault(self, method: str) -> Fault | None:
        with self._changed:
            faults = self._faults[method]
            return faults.popleft() if faults else None

    def record(self, method: str, parameters: dict[str, Any], status: int, result: object = None) -> None:
        message_id = result.get("message_id") if isinstance(result, dict) else None
        with self._changed:
            self.calls.append(Call(method, parameters, time.monotonic(), status, message_id))
            self._changed.notify_all()

    def result(self, method: str, parameters: dict[str, Any]) -> object:
        """What Telegram would answer. Raises Refused, and KeyError for a method that is not known here."""
        match method:
            case "getMe":
                return BOT
            case "getUpdates":
                return self._new_updates(parameters)
            case "sendMessage":
                check_message(parameters)
                return self._shown(next(self._ids), parameters)
            case "editMessageText":
                check_message(parameters)
                before = self.messages.get(parameters["message_id"])
                if before is None:
                    raise Refused("message to edit not found")
                if all(before.get(name) == parameters.get(name) for name in ("text", "reply_markup")):
                    raise Harmless("message is not modified")
                return self._shown(parameters["message_id"], parameters)
            case "getFile":
                if parameters["file_id"] not in self.files:
                    raise Harmless("invalid file_id")
                return dict.fromkeys(("file_id", "file_unique_id", "file_path"), parameters["file_id"])
            case "getChatMember":
                return self._member(parameters)
            case "setMyCommands":
                check_commands(parameters["commands"])
                check_language_code(parameters)
                self.shown[menu_key(parameters)] = parameters["commands"]
                return True
            case "getMyCommands":
                return self.shown.get(menu_key(parameters), [])
            case "setMyDescription" | "setMyShortDescription" | "getMyDescription" | "getMyShortDescription":
                return self._description(method, parameters)
            case "answerInlineQuery":
                check_inline_answer(parameters)
                return True
            case "answerCallbackQuery":
                if units_of(parameters.get("text", "")) > 200:
                    raise Refused("MESSAGE_TOO_LONG")
                return True
            case "deleteWebhook" | "sendChatAction":
                return True
        raise KeyError(method)

    def _shown(self, message_id: int, parameters: dict[str, Any]) -> dict[str, Any]:
        """The message as Telegram gives it back."""
        self.messages[message_id] = parameters
        return {
            "message_id": message_id,
            "date": int(time.time()),
            "chat": {"id": parameters["chat_id"], "type": "private", "first_name": "?"},
            "from": BOT,
            "text": plain_text(parameters["text"]),
        }

    def _description(self, method: str, parameters: dict[str, Any]) -> object:
        name = "short_description" if "Short" in method else "description"
        key = f"{name} {parameters.get('language_code', '')}"
        if method.startswith("get"):
            return {name: self.shown.get(key, "")}
        check_language_code(parameters)
        if len(parameters[name]) > (120 if "Short" in method else 512):
            raise Refused(f"{name} is too long")
        self.shown[key] = parameters[name]
        return True

    def _member(self, parameters: dict[str, Any]) -> dict[str, Any]:
        user = {"id": parameters["user_id"], "is_bot": False, "first_name": "?"}
        if (parameters["chat_id"], parameters["user_id"]) in self.group_admins:
            return {"status": "creator", "user": user, "is_anonymous": False}
        return {"status": "member", "user": user}

    def _new_updates(self, parameters: dict[str, Any]) -> list[dict[str, Any]]:
        with self._changed:
            first = parameters.get("offset", 0)
            self._updates = {number: update for number, update in self._updates.items() if number >= first}
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._updates or self._is_closed, parameters.get("timeout", 0))
            return list(self._updates.values())[: parameters.get("limit", 100)]


def handler_for(server: BotApiServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parameters = {name: decoded(name, value) for name, value in parse_qsl(body.decode(), True)}
            prefix, _, method = self.path.rpartition("/")
            fault = server.take_fault(method)
            if fault and (fault.is_dropped or fault.silent_seconds):
                time.sleep(fault.silent_seconds)
                server.record(method, parameters, 0)
                self.close_connection = True
                return
            status, answer = self.answer(prefix, method, parameters, fault)
            server.record(method, parameters, status, answer.get("result"))
            payload = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            with suppress(ConnectionError):  # the bot was killed while it waited
                self.wfile.write(payload)

        def do_GET(self) -> None:
            """A download; its length is not told."""
            prefix, _, file_id = self.path.rpartition("/")
            data = server.files.get(file_id)
            if prefix != f"/file/bot{TOKEN}" or data is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            pieces = repeat(bytes(65536), data // 65536) if isinstance(data, int) else [data]
            with suppress(ConnectionError):  # the bot has had enough
                for piece in pieces:
                    self.wfile.write(piece)
                    server.delivered[file_id] += len(piece)
            self.close_connection = True

        def answer(
            self, prefix: str, method: str, parameters: dict[str, Any], fault: Fault | None
        ) -> tuple[int, dict[str, Any]]:
            if prefix != f"/bot{TOKEN}" or server.token_is_revoked:
                return 401, refusal(401, "Unauthorized")
            if fault:
                answer = refusal(fault.status, "told to fail")
                if fault.retry_after_seconds is not None:
                    answer["parameters"] = {"retry_after": fault.retry_after_seconds}
                return fault.status, answer
            try:
                return 200, {"ok": True, "result": server.result(method, parameters)}
            except Harmless as error:
                return 400, refusal(400, f"Bad Request: {error}")
            except Refused as error:
                server.violations.append(f"{method} {parameters}: {error}")
                return 400, refusal(400, f"Bad Request: {error}")
            except KeyError:
                return 404, refusal(404, "Not Found")

        def log_message(self, format: str, *values: object) -> None:
            """Calls are recorded, not printed."""

    return Handler


def is_sent(call: Call) -> bool:
    return call.method == "sendMessage" and call.status == 200


def decoded(name: str, value: str) -> Any:
    """A parameter's value: all but texts are JSON."""
    if (
        name in ("text", "parse_mode", "action", "language_code", "file_id", "description", "short_description")
        or "query_id" in name
    ):
        return value
    return json.loads(value)


def refusal(status: int, description: str) -> dict[str, Any]:
    return {"ok": False, "error_code": status, "description": description}


def plain_text(message: str) -> str:
    """A message in Telegram's HTML as a user reads it. Raises Refused where it is not well formed."""
    open_tags: list[str] = []
    pieces: list[str] = []
    position = 0
    for tag in _TAG.finditer(message):
        pieces.append(message[position : tag.start()])
        position = tag.end()
        closes, name, _ = tag.groups()
        if name not in _TAGS:
            raise Refused(f"unsupported tag {name}")
        if not closes:
            if name == "blockquote" and name in open_tags:
                raise Refused("nested blockquote")
            open_tags.append(name)
        elif not open_tags or open_tags.pop() != name:
            raise Refused(f"unexpected end tag {name}")
    pieces.append(message[position:])
    if open_tags:
        raise Refused(f"no end tag for {open_tags}")
    for piece in pieces:
        if re.search("[<>]", piece) or "&" in _ENTITY.sub("", piece):
            raise Refused(f"not escaped: {piece!r}")
    return unescape("".join(pieces))


def check_message(parameters: dict[str, Any]) -> None:
    if parameters.get("parse_mode") != "HTML":
        raise Refused("all our messages are HTML")
    text = plain_text(parameters["text"])
    if not text.strip():
        raise Refused("message text is empty")
    if (units := units_of(text)) > 4096:
        raise Refused(f"message is too long: {units}")
    for row in parameters.get("reply_markup", {}).get("inline_keyboard", []):
        for button in row:
            if not 1 <= len(button.get("callback_data", "").encode()) <= 64:
                raise Refused("BUTTON_DATA_INVALID")
            if not button["text"].strip():
                raise Refused("button text is empty")


def check_commands(commands: list[dict[str, str]]) -> None:
    for command in commands:
        if not re.fullmatch("[a-z0-9_]{1,32}", command["command"]) or not 1 <= len(command["description"]) <= 256:
            raise Refused(f"BOT_COMMAND_INVALID: {command}")


def check_language_code(parameters: dict[str, Any]) -> None:
    if not re.fullmatch("([a-z]{2})?", parameters.get("language_code", "")):
        raise Refused("the language code has two letters or none")


def check_inline_answer(parameters: dict[str, Any]) -> None:
    for result in parameters["results"]:
        check_message({**result["input_message_content"], "text": result["input_message_content"]["message_text"]})
        if not 1 <= len(result["id"].encode()) <= 64 or not result["title"]:
            raise Refused("RESULT_ID_INVALID or ARTICLE_TITLE_EMPTY")
    button = parameters.get("button")
    if button and not (button["text"] and re.fullmatch("[A-Za-z0-9_-]{1,64}", button["start_parameter"])):
        raise Refused("BUTTON_INVALID")


def menu_key(parameters: dict[str, Any]) -> str:
    return f"{parameters.get('scope')} {parameters.get('language_code', '')}"


def units_of(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2
