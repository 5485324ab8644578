"""/privacy and /forget: what is kept of a chat, whether it may teach, and how all of it is deleted for good.

In a group only its admins decide: what one member set must not go by another's word.
"""

import re

from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Message, Update

from bot.handlers.choosing import why_no_admin
from bot.handlers.conversation import BotContext, chat_of
from bot.handlers.tapping import acknowledge, message_of, show
from bot.replies import fill
from bot.texts import N_, Texts

LEARNING_BUTTON = re.compile("learning:(on|off)")
FORGET_BUTTON = re.compile("forget:(yes|no)")

FOR_ADMINS = N_("Only this group's admins can decide that.")


async def privacy(update: Update, context: BotContext) -> None:
    """/privacy: what is kept, and a button for whether it may teach."""
    is_on = await context.parts.store.may_learn(chat_of(context.message))
    await context.reply(_told(context.texts, is_on), _switch(context.texts, is_on))


async def choose_learning(update: Update, context: BotContext) -> None:
    """The button below /privacy."""
    query, chat = update.callback_query, update.effective_chat
    if query is None or chat is None:
        return
    problem = await why_no_admin(update, context, context.texts.gettext(FOR_ADMINS))
    if problem is None:
        is_on = query.data == "learning:on"
        await context.parts.store.set_learning(chat.id, is_allowed=is_on)
        await show(query, _told(context.texts, is_on), _switch(context.texts, is_on))
    await acknowledge(query, problem)


async def forget(update: Update, context: BotContext) -> None:
    """/forget: ask once more."""
    texts = context.texts
    if problem := await why_no_admin(update, context, texts.gettext(FOR_ADMINS)):
        await context.reply(problem)
        return
    buttons = [
        InlineKeyboardButton(texts.gettext("Delete everything"), callback_data="forget:yes"),
        InlineKeyboardButton(texts.gettext("Keep it"), callback_data="forget:no"),
    ]
    text = texts.gettext(
        "<b>Delete all that is known of this chat?</b>\n"
        "Its paragraphs, the questions and answers, what was said of them, and what was chosen in "
        "/privacy and /settings would be gone for good."
    )
    await context.reply(text, InlineKeyboardMarkup([buttons]))


async def forget_or_keep(update: Update, context: BotContext) -> None:
    """The buttons below /forget."""
    query = update.callback_query
    if query is None:
        return
    problem, message = await why_no_admin(update, context, context.texts.gettext(FOR_ADMINS)), message_of(query)
    if problem is None and message is not None:
        is_kept = query.data == "forget:no"
        await show(
            query, context.texts.gettext("Nothing was deleted.") if is_kept else await _forgotten(context, message)
        )
    await acknowledge(query, problem)


async def _forgotten(context: BotContext, message: Message) -> str:
    """Forget the chat of `message`; what is to be told of that."""
    texts = context.texts
    gone = await context.parts.store.forget(message.chat.id)
    context.parts.engine.forget()
    told = fill(
        texts.gettext("Deleted for good. Paragraphs: {contexts:,}, questions: {questions:,}, verdicts: {verdicts:,}."),
        contexts=gone.contexts,
        questions=gone.questions,
        verdicts=gone.verdicts,
    )
    if await context.parts.store.may_learn(chat_of(message)):
        learning = texts.gettext("/privacy is as in a new chat: learning is on.")
    else:
        learning = texts.gettext("/privacy is as in a new chat: learning is off.")
    return f"{told}\n{learning}"


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
