"""How updates come in and messages go out, when things go wrong too: order, limits, retries, polling.

Built on python-telegram-bot's hooks, and just as ignorant of what the updates say. What they lead to is left
to the handlers, starting and stopping to `bot.application`.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any, Never
from weakref import WeakValueDictionary

from telegram import Bot, Update
from telegram.error import BadRequest, InvalidToken, NetworkError, TelegramError
from telegram.ext import AIORateLimiter, BaseUpdateProcessor

MAX_CONCURRENT_UPDATES = 1024
MAX_FLOOD_RETRIES = 5
RETRY_PAUSES_SECONDS = (0.5, 1, 2, 4, 8)
# Whether there is a server at all; what is out of date in a moment.
TRIED_ONCE = ("getMe", "sendChatAction", "answerCallbackQuery", "answerInlineQuery")
MAX_POLL_PAUSE_SECONDS = 30
POLL_SECONDS = 30
ALLOWED_UPDATES = (
    Update.MESSAGE,
    Update.EDITED_MESSAGE,
    Update.CALLBACK_QUERY,
    Update.INLINE_QUERY,
    Update.MY_CHAT_MEMBER,
)

logger = logging.getLogger(__name__)

# Durations as timedelta, as in python-telegram-bot's next version; without it, a 429 brings a warning about that.
os.environ.setdefault("PTB_TIMEDELTA", "true")


class OrderInChat(BaseUpdateProcessor):
    """Updates of one chat one after the other, those of different chats, or of none, at the same time.

    A chat's lock lives as long as one of its updates holds it or waits for it.
    """

    def __init__(self) -> None:
        super().__init__(MAX_CONCURRENT_UPDATES)
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()

    async def do_process_update(self, update: object, coroutine: Awaitable[Any]) -> None:
        chat = update.effective_chat if isinstance(update, Update) else None
        if chat is None:
            await coroutine
            return
        lock = self._locks.setdefault(chat.id, asyncio.Lock())
        async with lock:
            await coroutine

    async def initialize(self) -> None:
        """Nothing to set up."""

    async def shutdown(self) -> None:
        """Nothing to release."""


class PatientRateLimiter(AIORateLimiter):
    """Keeps to Telegram's limits, waits as long as a 429 says, and tries again after a 5xx or a timeout.

    A message can come twice that way, when only the answer to it was lost; better than not at all.
    """

    def __init__(self) -> None:
        super().__init__(max_retries=MAX_FLOOD_RETRIES)

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
        for pause_seconds in RETRY_PAUSES_SECONDS:
            try:
                return await super().process_request(callback, args, kwargs, endpoint, data, rate_limit_args)
            except BadRequest:
                raise
            except NetworkError as error:
                logger.warning("%s failed: %s. Trying again in %s s.", endpoint, error, pause_seconds)
                await asyncio.sleep(pause_seconds)
        return await super().process_request(callback, args, kwargs, endpoint, data, rate_limit_args)


class Polling:
    """Brings updates from Telegram into a queue; a revoked token ends it, where an Updater would fall silent.

    Telegram takes a call for more updates as the word that all before are dealt with.
    """

    def __init__(self, bot: Bot, queue: asyncio.Queue[object]) -> None:
        self._bot = bot
        self._queue = queue
        self._next_update_id = 0

    async def run(self) -> Never:
        """Poll until cancelled, whatever fails. Raises InvalidToken when the token is taken back."""
        pause_seconds = 1
        while True:
            try:
                updates = await self._bot.get_updates(
                    self._next_update_id,
                    timeout=timedelta(seconds=POLL_SECONDS),
                    allowed_updates=ALLOWED_UPDATES,
                )
            except InvalidToken:
                raise
            except TelegramError as error:
                logger.warning("no updates: %s. Trying again in %d s.", error, pause_seconds)
                await asyncio.sleep(pause_seconds)
                pause_seconds = min(2 * pause_seconds, MAX_POLL_PAUSE_SECONDS)
                continue
            pause_seconds = 1
            for update in updates:
                self._queue.put_nowait(update)
                self._next_update_id = update.update_id + 1

    async def confirm(self) -> None:
        """Tell Telegram that every update brought so far has been dealt with."""
        try:
            await self._bot.get_updates(self._next_update_id, limit=1, allowed_updates=ALLOWED_UPDATES)
        except TelegramError as error:
            logger.warning("the last updates may come again after the next start: %s", error)
