"""How updates come in: stored before they are confirmed, handled once, replayed after a crash.

Telegram takes a call for more updates as the word that all before are dealt with, and forgets them. What an update
leads to is left to the handlers; in which order they get it, to `bot.transport`.
"""

import asyncio
import json
import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Never

from telegram import Bot, Update
from telegram.error import InvalidToken, TelegramError

from bot.errors import StoreError
from bot.store import Store

MAX_POLL_PAUSE_SECONDS = 30
POLL_SECONDS = 30
MAX_REPLAYS = 3
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
        await self._replay()
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
        """Store `updates`; returns those that have not come before. What cannot be stored is handled all the same."""
        try:
            new = await self._store.keep_updates({update.update_id: update.to_json() for update in updates})
        except StoreError as error:
            logger.warning("%d updates could not be stored, a crash would lose them: %s", len(updates), error)
            return updates
        return [update for update in updates if update.update_id in new]

    async def _replay(self) -> None:
        """Queue what was stored and not handled before the process ended; what has ended it again and again is not."""
        try:
            left = await self._store.updates_left()
        except StoreError as error:
            logger.warning("what was not handled before the last end is not looked for: %s", error)
            return
        for update_id, replays, body in left:
            if replays > MAX_REPLAYS:
                logger.error(
                    "update %d is given up: the bot has ended %d times before it was handled", update_id, replays
                )
                await forget(self._store, update_id)
                continue
            logger.info("update %d is handled now: the bot ended before it was", update_id)
            self._queue.put_nowait(Update.de_json(json.loads(body), self._bot))


async def forget(store: Store, update_id: int) -> None:
    """The update has been handled: what it said is deleted, and it is not handled again should it come again."""
    try:
        await store.drop_update(update_id)
    except StoreError as error:
        logger.warning("update %d will be handled again after the next start: %s", update_id, error)
