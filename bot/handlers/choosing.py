"""/language for everyone, /settings for a group's admins, and who may change what a group reads."""

import logging
from collections.abc import Callable, Coroutine
from typing import Any

from telegram import Chat, InlineKeyboardButton, InlineKeyboardMarkup, Message, Update, User
from telegram.error import TelegramError

from bot.handlers import introducing
from bot.handlers.conversation import BotContext, command_in, payload
from bot.handlers.tapping import acknowledge, show
from bot.texts import LANGUAGES, language_of

LANGUAGE_BUTTON = "language:"
SETTINGS_BUTTON = "settings:set:"
AUTOMATIC = "auto"
ADMINS, EVERYONE = "admins", "everyone"

logger = logging.getLogger(__name__)

Handler = Callable[[Update, BotContext], Coroutine[Any, Any, None]]


def if_permitted(handler: Handler) -> Handler:
    """`handler`, for those who may change what the chat reads; others are told who may."""

    async def permitted(update: Update, context: BotContext) -> None:
        problem = None if _only_looks(context.message) else await why_not_change(update, context)
        if problem:
            await context.reply(problem)
        else:
            await handler(update, context)

    return permitted


async def why_not_change(update: Update, context: BotContext) -> str | None:
    """Why whoever sent the update may not change what the chat reads; None where they may."""
    chat = update.effective_chat
    if chat is None or not await context.parts.store.only_admins_set(chat.id):
        return None
    return await why_no_admin(
        update,
        context,
        context.texts.gettext("In this group only admins change what I read. An admin can allow it to all: /settings"),
    )


async def language(update: Update, context: BotContext) -> None:
    """/language shows the choice; /language NAME makes it without a button, as a terminal must."""
    user = update.effective_user
    if user is None:
        return
    wanted = payload(context.message).strip().casefold()
    named = [known for known, name in LANGUAGES.items() if wanted in (known.casefold(), name.casefold())]
    if named and context.message.sender_chat is None:  # all anonymous admins on Telegram are one user
        await _speak(context, user, named[0])
    await context.reply(
        context.texts.gettext("Which language shall I speak with you?"), await _languages(context, user)
    )
    if named and context.message.chat.type == Chat.PRIVATE:
        await _offer_menu(context, user)


async def choose_language(update: Update, context: BotContext) -> None:
    """A button of /language. In a group it changes the language of whoever presses it, and of nobody else."""
    query = update.callback_query
    if query is None or query.data is None:
        return
    chosen = query.data.removeprefix(LANGUAGE_BUTTON)
    if chosen in (*LANGUAGES, AUTOMATIC):
        await _speak(context, query.from_user, None if chosen == AUTOMATIC else chosen)
    await acknowledge(query, context.texts.gettext("From now on I speak English with you."))
    if _belongs_to(query.message, query.from_user):
        await show(
            query,
            context.texts.gettext("Which language shall I speak with you?"),
            await _languages(context, query.from_user),
        )
    if query.message and query.message.chat.type == Chat.PRIVATE:
        await _offer_menu(context, query.from_user)


async def settings(update: Update, context: BotContext) -> None:
    """/settings: who may set and clear the paragraph of a group."""
    if context.message.chat.type == Chat.PRIVATE:
        await context.reply(
            context.texts.gettext("Settings are for groups. In this chat the paragraph is yours alone.")
        )
        return
    await context.reply(
        context.texts.gettext("Who may set, change and delete what I read in this group?"),
        _who_may_set(context, await context.parts.store.only_admins_set(context.message.chat.id)),
    )


async def choose_settings(update: Update, context: BotContext) -> None:
    """A button of /settings; it works for the group's admins only."""
    query, chat = update.callback_query, update.effective_chat
    if query is None or query.data is None or chat is None:
        return
    if problem := await why_no_admin(
        update, context, context.texts.gettext("Only admins of this group can change its settings.")
    ):
        await acknowledge(query, problem)
        return
    only_admins = query.data.removeprefix(SETTINGS_BUTTON) == ADMINS
    await context.parts.store.let_only_admins_set(chat.id, only_admins)
    await acknowledge(query, context.texts.gettext("Done."))
    await show(
        query,
        context.texts.gettext("Who may set, change and delete what I read in this group?"),
        _who_may_set(context, only_admins),
    )


async def _speak(context: BotContext, user: User, chosen: str | None) -> None:
    await context.parts.store.set_language(user.id, chosen)
    context.speak(chosen or language_of(user.language_code), user)


async def _offer_menu(context: BotContext, user: User) -> None:
    """The menu of the user's private chat, in the language that is spoken there."""
    is_admin = context.parts.is_admin(user)
    await introducing.offer_commands_to(context.bot, user.id, context.language, is_admin=is_admin)


async def _languages(context: BotContext, user: User) -> InlineKeyboardMarkup:
    chosen = (await context.parts.store.standing(user.id, None)).language
    named = {**LANGUAGES, AUTOMATIC: context.texts.gettext("as my Telegram does")}
    return InlineKeyboardMarkup.from_column(
        [
            InlineKeyboardButton(_checked(name, known == (chosen or AUTOMATIC)), callback_data=LANGUAGE_BUTTON + known)
            for known, name in named.items()
        ]
    )


def _who_may_set(context: BotContext, only_admins: bool) -> InlineKeyboardMarkup:
    everyone, admins = context.texts.gettext("everyone"), context.texts.gettext("admins only")
    return InlineKeyboardMarkup.from_row(
        [
            InlineKeyboardButton(_checked(everyone, not only_admins), callback_data=SETTINGS_BUTTON + EVERYONE),
            InlineKeyboardButton(_checked(admins, only_admins), callback_data=SETTINGS_BUTTON + ADMINS),
        ]
    )


def _checked(name: str, is_chosen: bool) -> str:
    return f"✓ {name}" if is_chosen else name


async def why_no_admin(update: Update, context: BotContext, refusal: str) -> str | None:
    """None for an admin of the group, and in a private chat; `refusal` for others, and another sentence when Telegram
    does not tell.
    """
    chat, user, message = update.effective_chat, update.effective_user, update.message or update.edited_message
    if chat is None:
        return refusal
    if chat.type == chat.PRIVATE:
        return None
    if message and message.sender_chat:  # an anonymous admin speaks as the group itself
        return None if message.sender_chat.id == chat.id else refusal
    try:
        is_admin = user is not None and await context.parts.group_admins.include(context.bot, chat.id, user.id)
    except TelegramError as error:
        logger.warning("chat %s does not tell who its admins are: %s", chat.id, error)
        return context.texts.gettext("I could not find out whether you are an admin here. Please try again.")
    return None if is_admin else refusal


def _only_looks(message: Message) -> bool:
    """/context alone shows the paragraph: neither text nor file is given, nor a message that it replies to."""
    text = message.text or message.caption or ""
    command = command_in(text)
    replies = message.reply_to_message is not None and not message.reply_to_message.forum_topic_created
    return bool(command and command.name == "context" and not (command.payload.strip() or message.document or replies))


def _belongs_to(message: object, user: User) -> bool:
    """Whether a message with buttons was the bot's reply to `user`; in a private chat it always was."""
    if not isinstance(message, Message):
        return False
    asked = message.reply_to_message.from_user if message.reply_to_message else None
    return message.chat.type == Chat.PRIVATE or (asked is not None and asked.id == user.id)
