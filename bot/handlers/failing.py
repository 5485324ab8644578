"""What happens when a handler fails: the user gets a reference, the log gets the rest under the same one."""

import logging
import secrets
from contextlib import suppress

from telegram import Update
from telegram.error import Forbidden, TelegramError

from bot.errors import StoreError
from bot.handlers.admitting import note_removal
from bot.handlers.conversation import BotContext
from bot.replies import fill

logger = logging.getLogger(__name__)


async def report_error(update: object, context: BotContext) -> None:
    """The error handler. The log names update and chat, not what was written in it."""
    message = update.effective_message if isinstance(update, Update) else None
    chat_id = message.chat.id if message else None
    if isinstance(context.error, Forbidden):
        logger.info("chat %s does not let the bot write: %s", chat_id, context.error)
        if isinstance(update, Update):
            await note_removal(update, context)
        return
    reference = secrets.token_hex(4)
    logger.error("error %s in chat %s", reference, chat_id, exc_info=context.error)
    if message is None or not isinstance(update, Update):
        return
    user = update.effective_user
    with suppress(StoreError):  # it may be the very failure; then what their Telegram speaks has to do
        if chosen := (await context.parts.store.standing(user.id if user else None, None)).language:
            context.speak(chosen, user)
    text = context.texts.gettext(
        "Something went wrong here, and it is not your fault. Please try again in a minute. "
        "If it happens again, tell whoever runs this bot this reference: <code>{reference}</code>"
    )
    try:
        await context.reply(fill(text, reference=reference))
    except TelegramError as error:
        logger.warning("could not tell chat %s of error %s: %s", chat_id, reference, error)
