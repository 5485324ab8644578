"""What one process remembers for a moment, to save work: another process without it would do no harm."""

from collections import OrderedDict
from time import monotonic

from telegram import Bot

ADMIN_SECONDS = 60
MAX_ADMINS_REMEMBERED = 10_000


class GroupAdmins:
    """Who is an admin of which group, asked of Telegram and believed for `ADMIN_SECONDS`.

    Who is none is asked anew each time: someone who has just become one need not wait.
    """

    def __init__(self) -> None:
        self._known_until: OrderedDict[tuple[int, int], float] = OrderedDict()

    async def include(self, bot: Bot, chat_id: int, user_id: int) -> bool:
        """Whether the user is one. Raises TelegramError when that cannot be found out."""
        if monotonic() < self._known_until.get((chat_id, user_id), 0.0):
            return True
        member = await bot.get_chat_member(chat_id, user_id)
        if member.status not in (member.OWNER, member.ADMINISTRATOR):
            return False
        self._known_until[chat_id, user_id] = monotonic() + ADMIN_SECONDS
        self._known_until.move_to_end((chat_id, user_id))
        if len(self._known_until) > MAX_ADMINS_REMEMBERED:
            self._known_until.popitem(last=False)
        return True


class LatestQueries:
    """The latest update with an inline query of each user who is typing one; others of theirs are outdated.

    Telegram numbers updates in their order; handlers that run at the same time begin in any.
    """

    def __init__(self) -> None:
        self._latest: dict[int, int] = {}

    def begin(self, user_id: int, update_id: int) -> None:
        self._latest[user_id] = max(update_id, self._latest.get(user_id, update_id))

    def is_latest(self, user_id: int, update_id: int) -> bool:
        return self._latest.get(user_id) == update_id

    def end(self, user_id: int, update_id: int) -> None:
        if self.is_latest(user_id, update_id):
            del self._latest[user_id]
