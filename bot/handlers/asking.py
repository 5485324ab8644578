"""/ask and plain messages in private chats: a question, read in the chat's paragraph, answered as a reply."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter

from telegram import InlineKeyboardMarkup, Message, Update
from telegram.constants import ChatAction

from bot.handlers.conversation import BotContext, Flaw, author_of, flaw_of, payload, purpose_of, topic_of
from bot.handlers.judging import first_view, shown
from bot.handlers.paragraphs import HOW_TO_SET, offer_to_take
from bot.replies import fill
from bot.store import Candidate, Context, Question
from bot.texts import N_
from qa_engine import Reading
from qa_engine.errors import EngineBusy, EngineTimeout

CANDIDATES = 5
MIN_PARAGRAPH_CHARS = 20
TYPING_AFTER_SECONDS = 0.7
TYPING_LASTS_SECONDS = 4.5  # Telegram shows it for five

FLAWS = {
    Flaw.INVISIBLE: N_("I can see no character in your question: it has only control characters."),
    Flaw.WORDLESS: N_("Your question has no words, only symbols or emoji. What would you like to know?"),
}


ASK = "ask"


async def ask_by_reply(update: Update, context: BotContext) -> None:
    """In a group, a reply to an answer, or to the bot's own question what to ask; other replies are for people."""
    answered_from = await _answered_from(context)
    if answered_from or purpose_of(context.message)[0] == ASK:
        await _ask(context, answered_from)


async def ask(update: Update, context: BotContext) -> None:
    """/ask QUESTION, a plain message in a private chat, or either edited."""
    await _ask(context, await _answered_from(context))


async def _ask(context: BotContext, paragraph: Context | None) -> None:
    """Answer out of `paragraph`, or without one out of the current one."""
    message, parts, texts = context.message, context.parts, context.texts
    question = payload(message).strip()
    max_chars = parts.settings.max_question_chars
    if len(question) > max_chars:
        text = texts.gettext(
            "That question is too long: it has {chars:,} characters, and I take at most {max_chars:,}. "
            "Is it a part of your paragraph? Then reply to it with <code>/append</code>."
        )
        await context.reply(fill(text, chars=len(question), max_chars=max_chars), offer_to_take(context))
        return
    if (flaw := flaw_of(question)) is Flaw.EMPTY:
        await context.ask_back(texts.gettext("What is your question? Send it as a reply to this message."), ASK)
        return
    if flaw:
        await context.reply(texts.gettext(FLAWS[flaw]))
        return
    paragraph = paragraph or await parts.store.current_context(message.chat.id, topic_of(message))
    if paragraph is None:
        await context.reply(texts.gettext(HOW_TO_SET), None if _is_short(question) else offer_to_take(context))
        return

    started = perf_counter()
    try:
        async with typing(message):
            reading = await parts.engine.ask(
                question, paragraph.text, top_k=CANDIDATES, timeout_seconds=parts.settings.ask_timeout_seconds
            )
    except EngineBusy:
        await context.reply(
            texts.gettext("Too many questions are waiting at the moment. Please ask again in a minute.")
        )
        return
    except EngineTimeout:
        await context.reply(
            texts.gettext("Reading took too long, and I gave up on this question. Please ask it again.")
        )
        return
    latency_ms = (perf_counter() - started) * 1000

    # Kept before it is told: the buttons below the answer find it by its number.
    question_id = await parts.store.record_question(
        chat_id=message.chat.id,
        context_id=paragraph.id,
        author=author_of(message),
        message_id=message.id,
        text=question,
        answer=reading.best,
        candidates=reading.answers,
        no_answer_score=reading.no_answer_score,
        checkpoint=reading.checkpoint,
        latency_ms=latency_ms,
    )
    asked = asked_and_read(paragraph, question, reading, question_id or 0)
    text_shown, buttons = shown(texts, asked, first_view(asked))
    if question_id is None:  # deleted while it was read: there is nothing left that a button could work on
        await context.reply(text_shown)
        return
    offer = None if asked.is_answered or _is_short(question) else offer_to_take(context)
    if offer:
        text_shown += "\n\n" + texts.gettext("If that is a new text, make it the paragraph, then ask.")
        buttons = InlineKeyboardMarkup([*buttons.inline_keyboard, *offer.inline_keyboard])
    reply = await context.reply(text_shown, buttons)
    await parts.store.note_reply(question_id, reply.id)


def _is_short(text: str) -> bool:
    """Whether `text` is a question rather than a paragraph that somebody sent without its command."""
    return len(text) < MIN_PARAGRAPH_CHARS or text.endswith(("？", "?"))


def asked_and_read(paragraph: Context, text: str, reading: Reading, question_id: int = 0) -> Question:
    """A question with what was found, as the store will give it back; without an id where it is not kept."""
    candidates = tuple(Candidate(found.start, found.end, found.score) for found in reading.answers)
    return Question(question_id, paragraph, text, reading.best is not None, candidates)


async def _answered_from(context: BotContext) -> Context | None:
    """The paragraph of the answer that the message replies to, if it does."""
    message = context.message
    if message.reply_to_message is None:
        return None
    return await context.parts.store.context_answered_from(message.chat.id, message.reply_to_message.id)


@asynccontextmanager
async def typing(message: Message) -> AsyncIterator[None]:
    """Shows "typing…" in the chat of `message` for as long as the block takes, unless that is not long."""

    async def show() -> None:
        await asyncio.sleep(TYPING_AFTER_SECONDS)
        while True:
            await message.reply_chat_action(ChatAction.TYPING)
            await asyncio.sleep(TYPING_LASTS_SECONDS)

    showing = asyncio.create_task(show())
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)
