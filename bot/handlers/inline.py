"""`@this_bot question` in any chat: answered out of the paragraph that the user has set in private.

Telegram sends what is being typed whenever the user pauses. Only the last of it is read: an earlier query is
dropped as soon as there is a later one, and nothing of this is kept as a question. How an answer looks is
left to `bot.replies`.
"""

import asyncio
import logging

from telegram import (
    InlineQuery,
    InlineQueryResultArticle,
    InlineQueryResultsButton,
    InputTextMessageContent,
    LinkPreviewOptions,
    Update,
)
from telegram.constants import ParseMode
from telegram.error import BadRequest

from bot.handlers.asking import asked_and_read
from bot.handlers.conversation import BotContext, flaw_of
from bot.replies import answer_found, cut, fill, readable, sentence_around
from bot.store import Question
from bot.texts import N_, Texts
from qa_engine.errors import EngineBusy, EngineTimeout

TYPED_ON_SECONDS = 0.3
"""Whoever types on within this time is not done with their question."""

FRESH_SECONDS = 5  # how long Telegram may give the same answer again: the paragraph can change
MAX_TITLE_UNITS = 64
MAX_DESCRIPTION_UNITS = 128
START_PARAMETER = "inline"

# Each opens the private chat with the bot.
SET_FIRST = N_("Set a paragraph in our chat first")
WRITE_QUESTION = N_("Now write a question about your paragraph")
TOO_LONG = N_("The question is too long")
NOT_SAID = N_("The answer is not in your paragraph")
BUSY = N_("Too much to do right now, try again soon")

logger = logging.getLogger(__name__)


async def answer_inline(update: Update, context: BotContext) -> None:
    """An inline query: at most one result, or a button that says what is missing."""
    query, latest = update.inline_query, context.parts.latest_queries
    if query is None:
        return
    typed = query.from_user.id, update.update_id
    latest.begin(*typed)
    try:
        await asyncio.sleep(TYPED_ON_SECONDS)
        if not latest.is_latest(*typed):
            return
        found = await _found(query, context)
        if not latest.is_latest(*typed):
            return
    finally:
        latest.end(*typed)
    try:
        if isinstance(found, str):
            button = InlineQueryResultsButton(context.texts.gettext(found), start_parameter=START_PARAMETER)
            await query.answer([], cache_time=0, is_personal=True, button=button)
        else:
            await query.answer([found], cache_time=FRESH_SECONDS, is_personal=True)
    except BadRequest as error:  # the user has gone on, or waits no more
        logger.info("an inline query of user %d is too old to be answered: %s", query.from_user.id, error)


async def _found(query: InlineQuery, context: BotContext) -> InlineQueryResultArticle | str:
    """The result, or what is missing."""
    parts, question = context.parts, readable(query.query).strip()
    if len(question) > parts.settings.max_question_chars:
        return TOO_LONG
    paragraph = await parts.store.current_context(query.from_user.id)  # a private chat has its user's id
    if paragraph is None:
        return SET_FIRST
    if flaw_of(question):
        return WRITE_QUESTION
    try:
        reading = await parts.engine.ask(question, paragraph.text, timeout_seconds=parts.settings.ask_timeout_seconds)
    except (EngineBusy, EngineTimeout):
        return BUSY
    return _result(query.id, context.texts, asked_and_read(paragraph, question, reading)) if reading.best else NOT_SAID


def _result(query_id: str, texts: Texts, question: Question) -> InlineQueryResultArticle:
    """What the list shows, and the message that is sent when it is picked."""
    best = question.candidates[0]
    evidence = sentence_around(question.context.text, best.start, best.end)
    asked = fill("<i>{question}</i>", question=question.text)
    return InlineQueryResultArticle(
        id=query_id[:64],
        title=cut(readable(evidence.answer), MAX_TITLE_UNITS),
        description=cut(readable(evidence.before + evidence.answer + evidence.after), MAX_DESCRIPTION_UNITS),
        input_message_content=InputTextMessageContent(
            f"{asked}\n\n{answer_found(texts, question)}",
            parse_mode=ParseMode.HTML,
            link_preview_options=LinkPreviewOptions(is_disabled=True),
        ),
    )
