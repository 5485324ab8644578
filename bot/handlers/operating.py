"""/status for everyone, /reload for admins, and what admins are told when the checkpoint changes."""

import logging
from importlib.metadata import version

from telegram import Update
from telegram.error import TelegramError

from bot.handlers.conversation import BotApplication, BotContext, topic_of
from bot.replies import fill
from bot.texts import Texts
from qa_engine.reloading import Change, Loaded, Refused

logger = logging.getLogger(__name__)


async def status(update: Update, context: BotContext) -> None:
    parts, texts = context.parts, context.texts
    reader = parts.engine.reader
    paragraph = await parts.store.current_context(context.message.chat.id, topic_of(context.message))
    text = texts.gettext(
        "Model: <b>{checkpoint}</b>, since {since}\n"
        "Device: {device}, {dtype}\n"
        "Questions answered: {answered:,}\n"
        "Paragraph in this chat: {paragraph}\n"
        "Version: {version}"
    )
    await context.reply(
        fill(
            text,
            checkpoint=reader.name,
            since=f"{parts.engine.reader_since:%Y-%m-%d %H:%M:%S} UTC",
            device=str(reader.device),
            dtype=str(reader.dtype).removeprefix("torch."),
            answered=await parts.store.questions_answered(),
            paragraph=texts.gettext("set") if paragraph else texts.gettext("not set"),
            version=version("duwen"),
        )
    )


async def reload(update: Update, context: BotContext) -> None:
    """Look for a checkpoint now. Admins hear of a change from `announce`; here it is told to groups only."""
    parts, texts = context.parts, context.texts
    if not context.is_admin:
        await context.reply(texts.gettext("Only those who run this bot can reload its model. Anyone can /ask it."))
        return
    change = await parts.watcher.look()
    if change is None:
        text = texts.gettext("There is no new checkpoint. <b>{checkpoint}</b> goes on reading.")
        await context.reply(fill(text, checkpoint=parts.engine.reader.name))
    elif context.message.chat.id not in parts.settings.admin_user_ids:
        await context.reply(_told(texts, change))


async def announce(application: BotApplication, change: Change) -> None:
    """Tell every admin, each in their language, of a checkpoint that was loaded or refused."""
    parts = application.bot_data
    for user_id in parts.settings.admin_user_ids:
        try:
            await application.bot.send_message(user_id, _told(await parts.admin_texts(user_id), change))
        except TelegramError as error:
            logger.warning("could not tell admin %d: %s", user_id, error)


def _told(texts: Texts, change: Change) -> str:
    match change:
        case Loaded():
            text = texts.gettext("The checkpoint <b>{name}</b> is loaded and answers from now on.")
            return fill(text, name=change.name)
        case Refused():
            text = texts.gettext(
                "The checkpoint <b>{name}</b> was refused: {reason}\nThe one before goes on answering."
            )
            return fill(text, name=change.name, reason=change.reason)
