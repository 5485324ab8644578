"""In which order updates are handled, how messages go out and files come in, when things go wrong too: limits, retries.

Built on python-telegram-bot's hooks, and just as ignorant of what the updates say. What they lead to is left
to the handlers, starting and stopping to `bot.application`.
"""

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from enum import Enum, auto
from pathlib import Path
from time import monotonic
from typing import Any, cast
from weakref import WeakValueDictionary

import httpx
from telegram import File, Update
from telegram.error import BadRequest, NetworkError, RetryAfter
from telegram.ext import AIORateLimiter, BaseUpdateProcessor

from bot.errors import DocumentRefused, Unreadable

MAX_CONCURRENT_UPDATES = 1024
MAX_WAITING_IN_CHAT = 500
MAX_FLOOD_RETRIES = 5
RETRY_PAUSES_SECONDS = (0.5, 1, 2, 4, 8)
# Whether there is a server at all; what is out of date in a moment.
TRIED_ONCE = ("getMe", "sendChatAction", "answerCallbackQuery", "answerInlineQuery")
DOWNLOAD_SECONDS = 60
DOWNLOAD_PAUSES_SECONDS = (0, 0.5, 2)
PAUSE_SECONDS = 20
MAX_REMEMBERED_SENDERS = 10_000

logger = logging.getLogger(__name__)

# Durations as timedelta, as in python-telegram-bot's next version; without it, a 429 brings a warning about that.
os.environ.setdefault("PTB_TIMEDELTA", "true")


class OrderInChat(BaseUpdateProcessor):
    """Updates of one chat one after the other, those of different chats, or of none, at the same time.

    A chat's lock lives as long as one of its updates holds it or waits for it. Of a flood, what comes while
    MAX_WAITING_IN_CHAT updates of the chat wait is dropped: it would take the room of all others.
    """

    def __init__(self, forget: Callable[[int], Awaitable[None]]) -> None:
        """`forget` is called with the id of every update that has been handled, or dropped."""
        super().__init__(MAX_CONCURRENT_UPDATES)
        self._forget = forget
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._waiting: Counter[int] = Counter()

    async def do_process_update(self, update: object, coroutine: Awaitable[Any]) -> None:
        update = cast(Update, update)  # nothing else is put into the queue
        chat = update.effective_chat
        if chat is None:
            await coroutine
        elif self._waiting[chat.id] < MAX_WAITING_IN_CHAT:
            await self._in_turn(chat.id, coroutine)
        else:
            logger.warning("update %d is dropped: %d of chat %d wait", update.update_id, MAX_WAITING_IN_CHAT, chat.id)
            cast("Coroutine[Any, Any, Any]", coroutine).close()
        await self._forget(update.update_id)

    async def _in_turn(self, chat_id: int, coroutine: Awaitable[Any]) -> None:
        lock = self._locks.setdefault(chat_id, asyncio.Lock())
        self._waiting[chat_id] += 1
        try:
            async with lock:
                await coroutine
        finally:
            self._waiting[chat_id] -= 1
            if not self._waiting[chat_id]:
                del self._waiting[chat_id]

    async def initialize(self) -> None:
        """Nothing to set up."""

    async def shutdown(self) -> None:
        """Nothing to release."""


class PatientRateLimiter(AIORateLimiter):
    """Keeps to Telegram's limits, waits as long as a 429 says, and tries again after a 5xx or a timeout.

    Whom a 429 concerns waits alone: the library would have all chats wait. A message can come twice after a timeout,
    when only the answer to it was lost; better than not at all.
    """

    async def process_request(
        self,
        callback: Callable[..., Coroutine[Any, Any, Any]],
        args: Any,
        kwargs: dict[str, Any],
        endpoint: str,
        data: dict[str, Any],
        rate_limit_args: int | None,
    ) -> Any:
        if endpoint in TRIED_ONCE:
            return await callback(*args, **kwargs)

        async def patient(*args: Any, **kwargs: Any) -> Any:
            for _ in range(MAX_FLOOD_RETRIES):
                try:
                    return await callback(*args, **kwargs)
                except RetryAfter as error:
                    logger.warning("%s: Telegram wants a pause of %s", endpoint, error.retry_after)
                    await asyncio.sleep(cast(timedelta, error.retry_after).total_seconds() + 0.1)
            return await callback(*args, **kwargs)

        for pause_seconds in RETRY_PAUSES_SECONDS:
            try:
                return await super().process_request(patient, args, kwargs, endpoint, data, rate_limit_args)
            except BadRequest:
                raise
            except NetworkError as error:
                logger.warning("%s failed: %s. Trying again in %s s.", endpoint, error, pause_seconds)
                await asyncio.sleep(pause_seconds)
        return await super().process_request(patient, args, kwargs, endpoint, data, rate_limit_args)


class Verdict(Enum):
    """What becomes of a message: it is taken, or its sender is told to pause, or has been told already."""

    TAKEN = auto()
    TOO_FAST = auto()
    PAUSED = auto()


class Pace:
    """How many messages a minute are taken of each sender, or in each chat; that many may also come at once.

    The generic cell rate algorithm (ITU-T I.371): all that is kept of a sender is the moment until which what they
    have sent so far would last at the allowed rate.
    """

    def __init__(self, messages_a_minute: int) -> None:
        self._seconds_a_message = 60 / messages_a_minute
        self._lasts_until: dict[int, float] = {}
        self._paused_until: dict[int, float] = {}

    def take(self, sender_id: int) -> Verdict:
        """Count a message of the sender, and say whether to take it."""
        now = monotonic()
        if now < self._paused_until.get(sender_id, now):
            return Verdict.PAUSED
        lasts_until = max(now, self._lasts_until.get(sender_id, now)) + self._seconds_a_message
        if lasts_until > now + 60 + self._seconds_a_message / 2:
            self._paused_until[sender_id] = now + PAUSE_SECONDS
            return Verdict.TOO_FAST
        self._lasts_until[sender_id] = lasts_until
        for remembered in (self._lasts_until, self._paused_until):
            if len(remembered) > MAX_REMEMBERED_SENDERS:
                for over in [key for key, until in remembered.items() if until <= now]:
                    del remembered[over]
        return Verdict.TAKEN


async def download(file: File, max_bytes: int) -> bytes:
    """What `file` holds; reading stops at `max_bytes`, whatever size was announced.

    Raises DocumentRefused when there is more, or when it does not come.
    """
    path = file.file_path or ""
    if Path(path).is_absolute():  # a Bot API server of one's own, on this machine
        return await asyncio.to_thread(_beginning, Path(path), max_bytes)
    for pause_seconds in DOWNLOAD_PAUSES_SECONDS:
        await asyncio.sleep(pause_seconds)
        try:
            async with asyncio.timeout(DOWNLOAD_SECONDS):
                return await _streamed(path, max_bytes)
        except (httpx.HTTPError, TimeoutError) as error:
            logger.warning("a file was not delivered: %s", error or type(error).__name__)
    raise DocumentRefused(Unreadable.NOT_DELIVERED)


async def _streamed(url: str, max_bytes: int) -> bytes:
    # Unpacked by nobody: a small packed answer can become a large one.
    headers = {"Accept-Encoding": "identity"}
    async with httpx.AsyncClient() as client, client.stream("GET", url, headers=headers) as response:
        response.raise_for_status()
        data = bytearray()
        async for piece in response.aiter_raw():
            data += piece
            if len(data) > max_bytes:
                raise DocumentRefused(Unreadable.TOO_LARGE, limit=max_bytes)
        return bytes(data)


def _beginning(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise DocumentRefused(Unreadable.NOT_DELIVERED) from error
    if len(data) > max_bytes:
        raise DocumentRefused(Unreadable.TOO_LARGE, limit=max_bytes)
    return data
