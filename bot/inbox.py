"""How updates come in: stored before they are confirmed, handled once, replayed after a crash.

Telegram takes a call for more updates as the word that all before are dealt with, and forgets them. What an update
leads to is left to the handlers; in which order they get it, to `bot.transport`.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Never

from telegram import Bot, Update
from telegram.error import InvalidToken, TelegramError

from bot.errors import StoreError
from bot.store import Store

MAX_POLL_PAUSE_SECONDS = 30
POLL_SECONDS = 30
MAX_REPLAYS = 3
MAX_AGE = timedelta(hours=24)  # Telegram's own, for updates that it could not deliver
FORGET_PAUSES_SECONDS = (0, 1, 5, 30)
ALLOWED_UPDATES = (
    Update.MESSAGE,
    Update.EDITED_MESSAGE,
    Update.CALLBACK_QUERY,
    Update.INLINE_QUERY,
    Update.MY_CHAT_MEMBER,
)

logger = logging.getLogger(__name__)


class Inbox:
    """Brings updates from Telegram into a queue; whoever has handled one calls `forget`.

    A revoked token ends it, where an Updater would fall silent.
    """

    def __init__(self, bot: Bot, store: Store, queue: asyncio.Queue[object]) -> None:
        self._bot = bot
        self._store = store
        self._queue = queue
        self._next_update_id = 0

    async def run(self) -> Never:
        """Replay, then poll until cancelled, whatever fails. Raises InvalidToken when the token is taken back."""
        pause_seconds = 1
        while not await self._replay():
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, MAX_POLL_PAUSE_SECONDS)
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
            if updates:
                for update in await self._kept(updates):
                    self._queue.put_nowait(update)
                self._next_update_id = updates[-1].update_id + 1

    async def confirm(self) -> None:
        """Tell Telegram that every update brought so far has been dealt with."""
        try:
            await self._bot.get_updates(self._next_update_id, limit=1, allowed_updates=ALLOWED_UPDATES)
        except TelegramError as error:
            logger.warning("the last updates may come again after the next start: %s", error)

    async def _kept(self, updates: Sequence[Update]) -> Sequence[Update]:
        """Store `updates`; returns those that have not come before. What cannot be stored is handled all the same.

        Inline queries are not kept: they are out of date in a moment, and people are told so.
        """
        lasting = {update.update_id: update.to_json() for update in updates if not update.inline_query}
        try:
            new = await self._store.keep_updates(lasting)
        except StoreError as error:
            logger.warning("%d updates could not be stored, a crash would lose them: %s", len(updates), error)
            return updates
        return [update for update in updates if update.inline_query or update.update_id in new]

    async def _replay(self) -> bool:
        """Queue what was stored and not handled before the process ended; whether the database could tell.

        What has ended it again and again is given up, and what is older than MAX_AGE: people have gone on since.
        """
        try:
            left = await self._store.updates_left(datetime.now(UTC) - MAX_AGE)
        except StoreError as error:
            logger.warning("what was not handled before the last end is not known yet: %s", error)
            return False
        for update_id, replays, body in left:
            if replays > MAX_REPLAYS:
                logger.error(
                    "update %d is given up: the bot has ended %d times before it was handled", update_id, replays
                )
                await forget(self._store, update_id)
                continue
            logger.info("update %d is handled now: the bot ended before it was", update_id)
            self._queue.put_nowait(Update.de_json(json.loads(body), self._bot))
        return True


async def forget(store: Store, update_id: int) -> None:
    """The update has been handled: what it said is deleted, and it is not handled again should it come again."""
    for pause_seconds in FORGET_PAUSES_SECONDS:
        await asyncio.sleep(pause_seconds)
        try:
            await store.drop_update(update_id)
            return
        except StoreError as error:
            logger.warning("that update %d has been handled could not be noted: %s", update_id, error)
