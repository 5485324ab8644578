"""/context, /append, /clear: which paragraph a chat's questions are about."""

from datetime import datetime, timedelta
from string import punctuation

from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Message, Update
from telegram.error import BadRequest
from telegram.ext import ApplicationHandlerStop

from bot.errors import ContextTooLong
from bot.handlers.conversation import BotContext, Flaw, author_of, chat_of, command_in, flaw_of, given_text, topic_of
from bot.handlers.library import GONE, buttons_beside
from bot.handlers.tapping import acknowledge, message_of, show
from bot.replies import MAX_MESSAGE_UNITS, fill, quote, readable, units
from bot.store import Context
from bot.texts import N_, Texts

SPLIT_UNITS = range(2000, MAX_MESSAGE_UNITS + 1)
"""How long a message is that a client has split from a longer text.

Telegram Desktop cuts in the second half: at a blank line, else at a line's end, else at a blank, else behind ASCII
punctuation; and it trims the parts.
"""

SPLIT_SECONDS = 3
"""How soon after the part before the next one comes, by the times of sending."""

FLAWS = {
    Flaw.EMPTY: N_("There is no text in that message. A paragraph has to be text that I can read."),
    Flaw.INVISIBLE: N_("I can see no character in that paragraph: it has only control characters."),
    Flaw.WORDLESS: N_("That paragraph has no words, only symbols or emoji. I need some text to read."),
}
HOW_TO_SET = N_(
    "No paragraph is set in this chat. Send <code>/context</code> and the text, "
    "or reply to a message with <code>/context</code>. A file works, too: .txt, .md, .pdf, .docx."
)
TAKE_BUTTON = "context:take"
TRIMMED = "trimmed"
"""In a chat's data: the id of the last message of a paste behind which a client has trimmed white space."""

SET = "context"
"""The purpose of asking for a paragraph: the reply to that becomes it."""


async def set_or_show_context(update: Update, context: BotContext) -> None:
    """/context TEXT, /context as a reply, /context alone; a text that was asked for."""
    message, parts, texts = context.message, context.parts, context.texts
    text = given_text(message)
    if text is None:
        await _show_or_ask(context)
    elif problem := _problem(texts, text, parts.settings.max_context_chars):
        await context.reply(problem)
    elif update.edited_message and await parts.store.has_grown(message.chat.id, topic_of(message), message.id):
        await edited_append(update, context)
    else:
        paragraph = await parts.store.set_context(
            chat_of(message),
            text,
            author_of(message),
            message.id,
            topic_id=topic_of(message),
            open_until=_open_until(message),
        )
        _note_trimming(context)
        reply = await context.reply(_taken(context, paragraph))
        if _open_until(message):
            await parts.store.note_confirmation(paragraph.id, reply.id)


async def _show_or_ask(context: BotContext) -> None:
    """The paragraph that is set; where there is none, the request for one, as a phone sends /context at a tap."""
    message, texts = context.message, context.texts
    paragraph = await context.parts.store.current_context(message.chat.id, topic_of(message))
    others = await buttons_beside(context)
    if paragraph or others:
        await context.reply(_shown(texts, paragraph), others)
    else:
        text = N_(
            "No paragraph is set in this chat. Send it as a reply to this message: a text, or a file "
            "(.txt, .md, .pdf, .docx)."
        )
        await context.ask_back(texts.gettext(text), SET)


def offer_to_take(context: BotContext) -> InlineKeyboardMarkup | None:
    """A button that makes the message at hand the paragraph; only in private chats, and not for a command."""
    message = context.message
    if message.chat.type != message.chat.PRIVATE or command_in(message.text or ""):
        return None
    button = InlineKeyboardButton(context.texts.gettext("Make it the paragraph"), callback_data=TAKE_BUTTON)
    return InlineKeyboardMarkup([[button]])


async def take_message(update: Update, context: BotContext) -> None:
    """The button of `offer_to_take`: the text is still there, in the message that was replied to."""
    query = update.callback_query
    if query is None:
        return
    message, parts, texts = message_of(query), context.parts, context.texts
    said = message.reply_to_message if message else None
    if message is None or said is None or not said.text or message.chat.type != message.chat.PRIVATE:
        await acknowledge(query, texts.gettext(GONE))
        return
    await acknowledge(query)
    text = readable(said.text)
    if problem := _problem(texts, text, parts.settings.max_context_chars):
        await show(query, problem)
        return
    paragraph = await parts.store.set_context(chat_of(message), text, author_of(said), said.id)
    await show(query, _taken(context, paragraph))


async def join_part(update: Update, context: BotContext) -> None:
    """A plain message that may be the next part of a text that its sender's client has split. Ends its way if so."""
    message, parts = context.message, context.parts
    paragraph = await parts.store.join_part(
        message.chat.id,
        topic_of(message),
        author_of(message),
        message.id,
        message.date,
        readable(message.text or ""),
        parts.settings.max_context_chars,
        _open_until(message),
        context.application.chat_data.get(message.chat.id, {}).get(TRIMMED),
    )
    if paragraph is None:
        return
    _note_trimming(context)
    try:
        await _tell_of_joining(context, paragraph)
    except Exception as error:  # told or not, the message is a part, and no question
        await context.application.process_error(update, error)
    raise ApplicationHandlerStop


async def _tell_of_joining(context: BotContext, paragraph: Context) -> None:
    message, parts, texts = context.message, context.parts, context.texts
    max_chars, chars = parts.settings.max_context_chars, len(paragraph.text)
    text = texts.gettext("Your text came in {parts:,} messages, and I have joined them. Characters: {chars:,}.")
    if chars >= max_chars:
        text = texts.gettext(
            "Your text came in {parts:,} messages and is too long: I have kept its first {chars:,} characters."
        )
    told = f"{fill(text, parts=paragraph.parts, chars=chars)}\n{how_to_ask(context)}"
    try:
        if paragraph.confirmation_id is None:
            raise BadRequest("there is none")
        await context.bot.edit_message_text(told, message.chat.id, paragraph.confirmation_id)
    except BadRequest:  # it was deleted, or never came to be
        reply = await context.reply(told)
        await parts.store.note_confirmation(paragraph.id, reply.id)


async def append(update: Update, context: BotContext) -> None:
    """/append TEXT, /append as a reply."""
    message, parts, texts = context.message, context.parts, context.texts
    max_chars = parts.settings.max_context_chars
    text = given_text(message)
    if text is None:
        await context.reply(
            texts.gettext(
                "Send <code>/append</code> and the text that is to be added, "
                "or reply to a message with <code>/append</code>."
            )
        )
        return
    if problem := _problem(texts, text, max_chars):
        await context.reply(problem)
        return
    try:
        paragraph = await parts.store.append_context(
            chat_of(message), text, author_of(message), max_chars, message.id, topic_id=topic_of(message)
        )
    except ContextTooLong as error:
        await context.reply(_too_long(texts, error.chars, error.max_chars))
        return
    if paragraph is None:
        await context.reply(texts.gettext(HOW_TO_SET))
        return
    text = texts.gettext("Added. The paragraph's characters by now: {chars:,}.")
    await context.reply(fill(text, chars=len(paragraph.text)))


async def edited_append(update: Update, context: BotContext) -> None:
    """An edited message that is only a piece of the paragraph: its first version stands there already."""
    await context.reply(
        context.texts.gettext(
            "What you added before your edit stays as it was: I do not add a text twice. "
            "To change the paragraph, set it anew with /context."
        )
    )


async def clear(update: Update, context: BotContext) -> None:
    cleared = await context.parts.store.clear(context.message.chat.id)
    context.parts.engine.forget()
    if cleared.contexts == 0:
        await context.reply(context.texts.gettext("There is nothing to delete: this chat has no paragraph."))
        return
    text = context.texts.gettext("Deleted for good. Paragraphs: {contexts:,}, questions: {questions:,}.")
    await context.reply(fill(text, contexts=cleared.contexts, questions=cleared.questions))


async def follow_migration(update: Update, context: BotContext) -> None:
    """A group has become a supergroup, which has another id."""
    new_chat_id = context.message.migrate_to_chat_id
    if new_chat_id is not None:
        await context.parts.store.migrate_chat(context.message.chat.id, new_chat_id)


def _open_until(message: Message) -> datetime | None:
    """Until when the next message may belong to the same text as `message`; None where it was not split."""
    is_part = units(message.text or "") in SPLIT_UNITS
    return message.date + timedelta(seconds=SPLIT_SECONDS) if is_part else None


def _note_trimming(context: BotContext) -> None:
    """Keep, for the message that may come next, where the client has trimmed white space behind this one."""
    message = context.message
    text = message.text or ""
    has_no_blank = not any(character.isspace() for character in text[MAX_MESSAGE_UNITS // 2 :])
    is_cut_in_line = units(text) == MAX_MESSAGE_UNITS or (has_no_blank and text[-1:] in punctuation)
    if _open_until(message) and not is_cut_in_line:
        context.application.chat_data[message.chat.id][TRIMMED] = message.id


def _taken(context: BotContext, paragraph: Context) -> str:
    text = context.texts.gettext("The paragraph is set. Characters: {chars:,}.")
    return f"{fill(text, chars=len(paragraph.text))}\n{how_to_ask(context)}"


def _shown(texts: Texts, paragraph: Context | None) -> str:
    """The paragraph that is set: its beginning, its length, when and by whom it was set."""
    if paragraph is None:
        return texts.gettext(HOW_TO_SET)
    text = texts.gettext("Paragraph set by {author}, {time}. Characters: {chars:,}.")
    facts = fill(
        text,
        author=paragraph.author.name,
        time=f"{paragraph.set_at:%Y-%m-%d %H:%M} UTC",
        chars=len(paragraph.text),
    )
    return f"{facts}\n\n{quote(paragraph.text)}"


def _problem(texts: Texts, text: str, max_chars: int) -> str | None:
    if len(text) > max_chars:
        return _too_long(texts, len(text), max_chars)
    flaw = flaw_of(text)
    return texts.gettext(FLAWS[flaw]) if flaw else None


def _too_long(texts: Texts, chars: int, max_chars: int) -> str:
    text = texts.gettext(
        "That is too long: the paragraph would have {chars:,} characters, and I take at most {max_chars:,}. "
        "Nothing was changed."
    )
    return fill(text, chars=chars, max_chars=max_chars)


def how_to_ask(context: BotContext) -> str:
    if context.message.chat.type == context.message.chat.PRIVATE:
        return context.texts.gettext("Now write your question.")
    return context.texts.gettext("Now ask with <code>/ask</code> and your question.")
