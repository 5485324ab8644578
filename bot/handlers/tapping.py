"""What all buttons share: a tap is acknowledged, and the message that the button stands below is changed.

What a button does is left to the file that sends it.
"""

import logging
from contextlib import suppress

from telegram import CallbackQuery, InlineKeyboardMarkup, Message
from telegram.error import BadRequest

from bot.replies import cut

MAX_NOTICE_UNITS = 200
UNCHANGEABLE = ("not modified", "message to edit not found", "message can't be edited")
"""Why Telegram refuses an edit that does no harm: it was tapped twice, or the message was deleted, or is too old."""

logger = logging.getLogger(__name__)


async def acknowledge(query: CallbackQuery, notice: str | None = None) -> None:
    """Let the button rest, and show `notice`, which is no HTML, for a moment; one minutes old Telegram drops."""
    with suppress(BadRequest):
        await query.answer(cut(notice, MAX_NOTICE_UNITS) if notice else None)


def message_of(query: CallbackQuery) -> Message | None:
    """The message that the button stands below; None where it is too old for Telegram to hand it out."""
    message = query.message
    return message if isinstance(message, Message) and message.is_accessible else None


async def show(query: CallbackQuery, html: str, buttons: InlineKeyboardMarkup | None = None) -> None:
    """Put `html` in place of the message that the button stands below, where there still is one."""
    if message_of(query) is None:
        return
    try:
        await query.edit_message_text(html, reply_markup=buttons)
    except BadRequest as error:
        if not any(reason in error.message.lower() for reason in UNCHANGEABLE):
            raise
        logger.info("a message stays as it was: %s", error)
