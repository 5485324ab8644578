"""The buttons below an answer, and what users say of it: other candidates, more of the text, 👍, 👎, the right answer.

All that a button needs stands in its data and in the store, so that it works after a restart. `bot.learning` makes
examples of what is said here.
"""

import re
from dataclasses import dataclass

from telegram import CallbackQuery, InlineKeyboardButton, InlineKeyboardMarkup, Update

from bot.handlers.conversation import BotContext, author_of, chat_of, payload, purpose_of
from bot.handlers.tapping import acknowledge, message_of, show
from bot.learning import located
from bot.replies import answer_found, button_label, correction_kept, no_answer
from bot.store import Correction, Question, Verdict
from bot.texts import N_, Texts

BUTTON = re.compile(r"(show|right|wrong|pick|absent):(\d{1,18}):(\d{1,2}|-)(w?)", re.ASCII)

CORRECT = "correct"

GONE = N_("That text has been deleted, and this answer with it. Please ask again.")
WHICH = N_("<b>What is the right answer?</b> Reply to this message with words of the text, or choose:")


@dataclass(frozen=True)
class View:
    """What a message shows of a question: a candidate, with more text or less; without index, that there is none."""

    index: int | None
    is_wide: bool = False


async def tap(update: Update, context: BotContext) -> None:
    """A button below an answer, or below the question for the right one. Every tap is acknowledged."""
    query = update.callback_query
    if query is None:
        return
    notice: str | None = None
    try:
        notice = await _act(query, context)
    finally:
        await acknowledge(query, notice)


async def unknown_button(update: Update, context: BotContext) -> None:
    """A button of a message that an earlier version of the bot sent."""
    if update.callback_query:
        await acknowledge(update.callback_query, context.texts.gettext(GONE))


async def take_correction(update: Update, context: BotContext) -> None:
    """A reply to the question for the right answer."""
    message, texts = context.message, context.texts
    _, question_id = purpose_of(message)
    question = await context.parts.store.question(message.chat.id, question_id)
    if question is None:
        await context.reply(texts.gettext(GONE))
        return
    words = payload(message)
    near = question.candidates[0].start if question.candidates else 0
    span = located(question.context.text, words, near)
    if not await _keep(context, question, author_of(message).id, span, words):
        reply = texts.gettext(GONE)
    elif span is None:
        reply = texts.gettext(
            "Those words do not stand in the text, so I cannot learn from them; that the answer was wrong is kept. "
            "You can reply to the same message again, with words of the text."
        )
    else:
        reply = correction_kept(texts, question.context.text, *span)
        if note := await _unused(context):
            reply = f"{reply}\n\n{note}"
    await context.reply(reply)


def shown(texts: Texts, question: Question, view: View) -> tuple[str, InlineKeyboardMarkup]:
    """The message for a question and its buttons."""
    if view.index is None:
        return no_answer(texts), buttons(texts, question, view)
    return answer_found(texts, question, view.index, is_wide=view.is_wide), buttons(texts, question, view)


def first_view(question: Question) -> View:
    """What the reply to a question shows: the best answer, or that the text does not say."""
    return View(0 if question.is_answered else None)


def buttons(texts: Texts, question: Question, view: View) -> InlineKeyboardMarkup:
    """What can be done with the answer that is shown."""
    index, count = view.index, len(question.candidates)
    look = []
    if index is None:
        if count:
            look.append(_button(texts.gettext("Best guess"), "show", question, View(0)))
    else:
        if count > 1:
            following = View((index + 1) % count)
            look.append(_button(texts.gettext("Other answers"), "show", question, following))
        text = texts.gettext("Less text") if view.is_wide else texts.gettext("More text")
        look.append(_button(text, "show", question, View(index, not view.is_wide)))
    judge = [_button("👍", "right", question, view), _button("👎", "wrong", question, view)]
    return InlineKeyboardMarkup([look, judge] if look else [judge])


async def _act(query: CallbackQuery, context: BotContext) -> str | None:
    """Do what the button says; returns what is to be told in passing."""
    match, message, texts = BUTTON.fullmatch(query.data or ""), message_of(query), context.texts
    if match is None or message is None:
        return texts.gettext(GONE)
    verb, question_id, index = match[1], int(match[2]), None if match[3] == "-" else int(match[3])
    question = await context.parts.store.question(message.chat.id, question_id)
    if question is None or (index or 0) >= max(1, len(question.candidates)):
        return texts.gettext(GONE)
    match verb:
        case "show":
            await show(query, *shown(texts, question, View(index, bool(match[4]))))
            return None
        case "wrong":
            return await _ask_back(query, context, question, View(index))
        case _:
            return await _take_verdict(query, context, question, verb, index)


async def _take_verdict(
    query: CallbackQuery, context: BotContext, question: Question, verb: str, index: int | None
) -> str:
    """👍, or a choice below the question for the right answer."""
    texts = context.texts
    span = None
    if verb != "absent" and index is not None and question.candidates:
        span = (question.candidates[index].start, question.candidates[index].end)
    if not await _keep(context, question, query.from_user.id, span):
        return texts.gettext(GONE)
    thanks = texts.gettext("Thank you. That is kept.")
    if note := await _unused(context):
        thanks = f"{thanks} {note}"
    if verb != "right":
        html = (
            correction_kept(texts, question.context.text, *span)
            if span
            else texts.gettext("Thank you. It is kept that the text does not say.")
        )
        await show(query, html)
    return thanks


async def _ask_back(query: CallbackQuery, context: BotContext, question: Question, view: View) -> str:
    """👎: keep that, and ask for the right answer."""
    texts = context.texts
    if not await context.parts.store.judge(question, query.from_user.id, Verdict.WRONG):
        return texts.gettext(GONE)
    choices = [
        [_button(button_label(question.context.text[one.start : one.end]), "pick", question, View(index))]
        for index, one in enumerate(question.candidates)
        if index != view.index
    ]
    choices.append([_button(texts.gettext("The text does not say"), "absent", question, View(None))])
    await context.ask_back(texts.gettext(WHICH), CORRECT, question.id, InlineKeyboardMarkup(choices))
    return texts.gettext("Thank you. That is kept.")


async def _keep(
    context: BotContext, question: Question, user_id: int, span: tuple[int, int] | None, words: str | None = None
) -> bool:
    """Keep what a user holds for right: a span of the text; `words` that are none; or that the text does not say."""
    given = question.candidates[0] if question.is_answered and question.candidates else None
    correction: Correction | None = None
    if span is None and words is None:
        verdict = Verdict.ABSENT
    elif span and given and span == (given.start, given.end):
        verdict = Verdict.RIGHT
    else:
        verdict = Verdict.WRONG
        start, end = span or (None, None)
        text = question.context.text[start:end] if span else words or ""
        correction = Correction(text, start, end)
    return await context.parts.store.judge(question, user_id, verdict, correction)


async def _unused(context: BotContext) -> str | None:
    """That this chat's texts teach nothing, where that is so."""
    if await context.parts.store.may_learn(chat_of(context.message)):
        return None
    return context.texts.gettext("Learning is off in this chat, so it teaches me nothing: see /privacy.")


def _button(text: str, verb: str, question: Question, view: View) -> InlineKeyboardButton:
    index = "-" if view.index is None else view.index
    data = f"{verb}:{question.id}:{index}{'w' if view.is_wide else ''}"
    return InlineKeyboardButton(text, callback_data=data)
