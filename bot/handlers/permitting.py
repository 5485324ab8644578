"""/privacy and /forget: what is kept of a chat, whether it may teach, and how all of it is deleted for good.

In a group only its admins decide: what one member set must not go by another's word.
"""

import re

from telegram import CallbackQuery, InlineKeyboardButton, InlineKeyboardMarkup, Message, Update, User
from telegram.constants import ChatMemberStatus

from bot.handlers.conversation import BotContext, chat_of
from bot.handlers.judging import answer, show
from bot.replies import fill
from bot.texts import N_, Texts

LEARNING = re.compile("learning:(on|off)")
FORGETTING = re.compile("forget:(yes|no)")

FOR_ADMINS = N_("Only this group's admins can decide that.")


async def privacy(update: Update, context: BotContext) -> None:
    """/privacy: what is kept, and a button for whether it may teach."""
    is_on = await context.parts.store.may_learn(chat_of(context.message))
    await context.reply(_told(context.texts, is_on), _switch(context.texts, is_on))


async def learning_pressed(update: Update, context: BotContext) -> None:
    """The button below /privacy."""
    query = update.callback_query
    if query is None:
        return
    notice: str | None = None
    try:
        if not isinstance(query.message, Message) or not await _may_decide(query.message, query.from_user):
            notice = context.texts.gettext(FOR_ADMINS)
            return
        is_on = query.data == "learning:on"
        await context.parts.store.set_learning(query.message.chat.id, is_allowed=is_on)
        await show(query, _told(context.texts, is_on), _switch(context.texts, is_on))
    finally:
        await answer(query, notice)


async def forget(update: Update, context: BotContext) -> None:
    """/forget: ask once more."""
    message, texts = context.message, context.texts
    if message.sender_chat != message.chat and not await _may_decide(message, message.from_user):
        await context.reply(texts.gettext(FOR_ADMINS))
        return
    buttons = [
        InlineKeyboardButton(texts.gettext("Delete everything"), callback_data="forget:yes"),
        InlineKeyboardButton(texts.gettext("Keep it"), callback_data="forget:no"),
    ]
    text = texts.gettext(
        "<b>Delete all that is known of this chat?</b>\n"
        "Its paragraphs, the questions and answers, what was said of them, and its choice in /privacy "
        "would be gone for good."
    )
    await context.reply(text, InlineKeyboardMarkup([buttons]))


async def forgetting_pressed(update: Update, context: BotContext) -> None:
    """The buttons below /forget."""
    query = update.callback_query
    if query is None:
        return
    notice: str | None = None
    try:
        notice = await _forget(query, context)
    finally:
        await answer(query, notice)


async def _forget(query: CallbackQuery, context: BotContext) -> str | None:
    texts = context.texts
    if not isinstance(query.message, Message) or not await _may_decide(query.message, query.from_user):
        return texts.gettext(FOR_ADMINS)
    if query.data == "forget:no":
        await show(query, texts.gettext("Nothing was deleted."), None)
        return None
    gone = await context.parts.store.forget(query.message.chat.id)
    told = fill(
        texts.gettext("Deleted for good. Paragraphs: {contexts:,}, questions: {questions:,}, verdicts: {verdicts:,}."),
        contexts=gone.contexts,
        questions=gone.questions,
        verdicts=gone.verdicts,
    )
    if await context.parts.store.may_learn(chat_of(query.message)):
        learning = texts.gettext("/privacy is as in a new chat: learning is on.")
    else:
        learning = texts.gettext("/privacy is as in a new chat: learning is off.")
    await show(query, f"{told}\n{learning}", None)
    return None


async def _may_decide(message: Message, user: User | None) -> bool:
    """Whether `user` decides for the chat of `message`: in private chats anyone, elsewhere its admins."""
    if message.chat.type == message.chat.PRIVATE:
        return True
    if user is None:
        return False
    member = await message.chat.get_member(user.id)
    return member.status in (ChatMemberStatus.OWNER, ChatMemberStatus.ADMINISTRATOR)


def _told(texts: Texts, is_on: bool) -> str:
    kept = texts.gettext(
        "<b>What is kept of this chat</b>: its paragraphs, the questions and answers, and what you say of them with "
        "👍 and 👎. Nobody but those who run this bot can see it. /clear deletes the paragraphs and questions, "
        "/forget everything."
    )
    if is_on:
        learning = texts.gettext(
            "<b>Learning is on</b>: they may train the model on questions that got 👍 or a right answer from you, with "
            "the paragraph that these are about. Turn it off, and none of them is used, those from before neither."
        )
    else:
        learning = texts.gettext(
            "<b>Learning is off</b>: no paragraph or question of this chat is used to train the model."
        )
    return f"{kept}\n\n{learning}"


def _switch(texts: Texts, is_on: bool) -> InlineKeyboardMarkup:
    text = texts.gettext("Turn learning off") if is_on else texts.gettext("Turn learning on")
    button = InlineKeyboardButton(text, callback_data="learning:off" if is_on else "learning:on")
    return InlineKeyboardMarkup([[button]])
