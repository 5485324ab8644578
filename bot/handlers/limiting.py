"""What goes before the handlers that work: who writes too fast is told so once, and then not heard for a while.

Which messages count is said in `bot.application`; how they are counted in `bot.transport`.
"""

import logging

from telegram import Update
from telegram.error import TelegramError
from telegram.ext import ApplicationHandlerStop

from bot.handlers.conversation import BotContext, author_of
from bot.handlers.tapping import acknowledge
from bot.replies import fill
from bot.texts import N_
from bot.transport import PAUSE_SECONDS, Verdict

TOO_FAST = N_("You write faster than I can read. Please wait {seconds} seconds, then send your last message again.")

logger = logging.getLogger(__name__)


async def slow_down(update: Update, context: BotContext) -> None:
    """Let a message through, or end its way here."""
    message = context.message
    if (verdict := _verdict(context, author_of(message).id, message.chat.id)) is Verdict.TAKEN:
        return
    if verdict is Verdict.TOO_FAST:
        try:
            await context.reply(fill(context.texts.gettext(TOO_FAST), seconds=PAUSE_SECONDS))
        except TelegramError as error:  # nothing is let through because of this
            logger.warning("could not slow down chat %s: %s", message.chat.id, error)
    raise ApplicationHandlerStop


async def slow_down_taps(update: Update, context: BotContext) -> None:
    """The same for a tap on a button; it is always acknowledged, or the button would go on blinking."""
    query, chat = update.callback_query, update.effective_chat
    if query is None or chat is None or (verdict := _verdict(context, query.from_user.id, chat.id)) is Verdict.TAKEN:
        return
    text = fill(context.texts.gettext(TOO_FAST), seconds=PAUSE_SECONDS) if verdict is Verdict.TOO_FAST else None
    try:
        await acknowledge(query, text)
    except TelegramError as error:
        logger.warning("could not slow down the taps in chat %s: %s", chat.id, error)
    raise ApplicationHandlerStop


def _verdict(context: BotContext, sender_id: int, chat_id: int) -> Verdict:
    verdict = context.parts.user_pace.take(sender_id)
    return context.parts.chat_pace.take(chat_id) if verdict is Verdict.TAKEN else verdict
