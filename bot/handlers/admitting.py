"""Who is let in before any other handler: allow lists, chats that the bot has left, and the language to speak.

What a group lets its members do is left to `bot.handlers.choosing`.
"""

import logging
from datetime import UTC, datetime

from telegram import CallbackQuery, InlineQuery, Message, Update
from telegram.error import TelegramError
from telegram.ext import ApplicationHandlerStop, filters

from bot.errors import StoreError
from bot.handlers.conversation import BotContext, Mentioned, RepliesToMe, ThroughMe, ToMe
from bot.handlers.introducing import ADMIN_COMMANDS, COMMANDS, GROUP_ADMIN_COMMANDS
from bot.replies import fill
from bot.settings import Settings
from bot.texts import N_

NOT_FOR_YOU = N_("This bot is only for those whom its operator has chosen.")
REFUSED_SECONDS = 300

FOR_ME = (
    filters.ChatType.PRIVATE
    | ToMe(*COMMANDS, *ADMIN_COMMANDS, *GROUP_ADMIN_COMMANDS)
    | ToMe(explicit=True)
    | ToMe("context", in_caption=True)
    | Mentioned()
    | RepliesToMe()
)
"""Messages that this bot is to answer, as far as that can be told before they are read."""

_THROUGH_ME = ThroughMe()

logger = logging.getLogger(__name__)


async def admit(update: Update, context: BotContext) -> None:
    """Let the update through to the other handlers, which then speak the language that the user has chosen.

    Raises ApplicationHandlerStop where there is nothing for them to do.
    """
    user, chat = update.effective_user, update.effective_chat
    user_id, chat_id = user.id if user else None, chat.id if chat else None
    if update.my_chat_member:
        return
    message = update.message or update.edited_message
    if message and _THROUGH_ME.check_update(update):
        raise ApplicationHandlerStop
    try:
        standing = await context.parts.store.standing(user_id, chat_id)
        if standing.language:
            context.speak(standing.language, user)
        if message and standing.left_at:
            if (message.edit_date or message.date) <= standing.left_at:
                raise ApplicationHandlerStop
            await context.parts.store.note_membership(message.chat.id, None)
    except StoreError as error:  # what needs the store will say so; /help does not
        logger.warning("neither language nor membership are known: %s", error)
    if not is_allowed(context.parts.settings, user_id, chat_id):
        await _refuse(update, context, message)
        raise ApplicationHandlerStop


def is_allowed(settings: Settings, user_id: int | None, chat_id: int | None) -> bool:
    """Whether the bot works for this user in this chat: one of them is listed, or nothing is."""
    if not settings.allowed_user_ids and not settings.allowed_chat_ids:
        return True
    # A private chat has the id of its user, so that either list may name one.
    chats = settings.allowed_chat_ids
    return chat_id in chats or user_id in settings.allowed_user_ids | settings.admin_user_ids | chats


async def follow_membership(update: Update, context: BotContext) -> None:
    """The bot was added to a chat, removed from it, blocked or unblocked."""
    change = update.my_chat_member
    if change is None:
        return
    is_gone = change.new_chat_member.status in (change.new_chat_member.LEFT, change.new_chat_member.BANNED)
    await context.parts.store.note_membership(change.chat.id, change.date if is_gone else None)
    logger.info("chat %s: the bot is now %s", change.chat.id, change.new_chat_member.status)


async def note_removal(update: Update, context: BotContext) -> None:
    """Telegram says that the bot may not write to this group: keep to that until the bot is back."""
    chat = update.effective_chat
    if chat is None or chat.type == chat.PRIVATE:
        return
    try:
        await context.parts.store.note_membership(chat.id, datetime.now(UTC))
    except StoreError as error:
        logger.warning("chat %s may be written to again: %s", chat.id, error)


async def _refuse(update: Update, context: BotContext, message: Message | None) -> None:
    query: CallbackQuery | InlineQuery | None
    try:
        if query := update.callback_query:
            await query.answer(context.texts.gettext(NOT_FOR_YOU), show_alert=True)
        elif query := update.inline_query:
            await query.answer([], cache_time=REFUSED_SECONDS, is_personal=True)
        elif message and FOR_ME.check_update(update) and await context.parts.store.refuse_once(message.chat.id):
            text = context.texts.gettext("They can add this chat by its number: <code>{chat_id}</code>")
            text = f"{context.texts.gettext(NOT_FOR_YOU)}\n{fill(text, chat_id=str(message.chat.id))}"
            await context.reply(text)
    except (TelegramError, StoreError) as error:  # nobody is let in because of this
        logger.warning("could not refuse chat %s: %s", message.chat.id if message else None, error)
