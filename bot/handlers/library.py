"""/contexts: the texts that a chat keeps, with buttons to switch, rename and delete; and what these buttons do.

A button carries an action, the text's id and the page of the list it stands on. The store looks a text up by
its chat as well, so that a button's data that someone made up reaches nothing of other chats.
"""

import re
from enum import StrEnum

from telegram import InlineKeyboardButton, InlineKeyboardMarkup, Message, Update

from bot.handlers.choosing import why_not_change
from bot.handlers.conversation import BotContext, flaw_of, payload, purpose_of, topic_of
from bot.handlers.tapping import acknowledge, message_of, show
from bot.replies import cut, fill
from bot.store import Listed
from bot.texts import N_, Texts

PAGE_LENGTH = 5
MAX_TITLE_UNITS = 60
MAX_BUTTON_UNITS = 30
BUTTON = r"library:([lsrdx]):(\d{1,18}):(\d{1,6})"
RENAME = "rename"
GONE = N_("That text is gone.")


class Action(StrEnum):
    """What a button of the list does."""

    LIST = "l"
    SWITCH = "s"
    RENAME = "r"
    ASK_TO_DELETE = "d"
    DELETE = "x"


async def contexts(update: Update, context: BotContext) -> None:
    """/contexts: the list's first page."""
    await context.reply(*await _page(context, context.message, 0))


async def tap(update: Update, context: BotContext) -> None:
    """A button under the list, or under what `/context` shows."""
    query = update.callback_query
    if query is None or (match := re.fullmatch(BUTTON, query.data or "")) is None:
        return
    message = message_of(query)
    if message is None:
        await acknowledge(query, context.texts.gettext("This list is too old. Send /contexts for a new one."))
        return
    action, context_id, page = Action(match[1]), int(match[2]), int(match[3])
    if action is not Action.LIST and (problem := await why_not_change(update, context)):
        await acknowledge(query, problem)
        return
    store, texts, chat_id = context.parts.store, context.texts, message.chat.id
    listed = None if action is Action.LIST else await store.listed(chat_id, context_id)
    said = None
    if action is not Action.LIST and listed is None:
        said = texts.gettext(GONE)
    elif listed is not None:
        match action:
            case Action.SWITCH if await store.switch_context(chat_id, context_id):
                said = texts.gettext("From now on I read: {title}").format(title=_title(listed))  # no HTML
                page = 0
            case Action.RENAME:
                text = texts.gettext("Reply to this message with the new name of <b>{title}</b>.")
                await context.ask_back(fill(text, title=_title(listed)), RENAME, context_id)
                await acknowledge(query)
                return
            case Action.ASK_TO_DELETE:
                await acknowledge(query)
                await show(query, *_confirmation(texts, listed, page))
                return
            case Action.DELETE if await store.delete_context(chat_id, context_id):
                context.parts.engine.forget()
                said = texts.gettext("Deleted for good.")
    await acknowledge(query, said)
    await show(query, *await _page(context, message, page))


async def rename(update: Update, context: BotContext) -> None:
    """A reply to the question for a new name."""
    texts = context.texts
    _, context_id = purpose_of(context.message)
    title = cut(" ".join(payload(context.message).split()), MAX_TITLE_UNITS)
    if flaw_of(title):
        await context.ask_back(texts.gettext("A name needs a letter or a number. Try again."), RENAME, context_id)
    elif await context.parts.store.rename_context(context.message.chat.id, context_id, title):
        await context.reply(fill(texts.gettext("Its name is now <b>{title}</b>. /contexts lists all."), title=title))
    else:
        await context.reply(texts.gettext(GONE))


async def buttons_beside(context: BotContext) -> InlineKeyboardMarkup | None:
    """Buttons under the text that is current: back to the one before it, and to the list; none where it is alone."""
    message = context.message
    first, number = await context.parts.store.contexts(message.chat.id, topic_of(message), 0, 2)
    others = [listed for listed in first if not listed.is_current]
    if not others:
        return None
    everything = fill(context.texts.gettext("All texts ({number})"), number=number)
    return InlineKeyboardMarkup(
        [
            [_button(f"⇄ {_title(others[0])}", Action.SWITCH, others[0].id)],
            [_button(everything, Action.LIST)],
        ]
    )


async def _page(context: BotContext, message: Message, page: int) -> tuple[str, InlineKeyboardMarkup | None]:
    """A page of the list of the chat and topic of `message`: as HTML, and its buttons."""
    store, texts = context.parts.store, context.texts
    chat_id, topic_id = message.chat.id, topic_of(message)
    listed, number = await store.contexts(chat_id, topic_id, page * PAGE_LENGTH, PAGE_LENGTH)
    if not listed and number:  # the last text of the last page has just been deleted
        page = (number - 1) // PAGE_LENGTH
        listed, number = await store.contexts(chat_id, topic_id, page * PAGE_LENGTH, PAGE_LENGTH)
    if not listed:
        return texts.gettext("No text is kept here. Send <code>/context</code> and a text, or a file."), None
    lines = [fill(texts.gettext("<b>Texts kept here: {number}</b>"), number=number), ""]
    rows: list[list[InlineKeyboardButton]] = []
    for place, each in enumerate(listed, start=page * PAGE_LENGTH + 1):
        facts = fill(
            texts.gettext("{chars:,} characters, {time}"),
            chars=each.chars,
            time=f"{each.set_at:%Y-%m-%d %H:%M} UTC",
        )
        lines.append(
            fill("{mark}{place}. <b>{title}</b>", mark="✅ " * each.is_current, place=place, title=_title(each))
        )
        lines.append(facts)
        rows.append(
            [
                _button(f"{place}. {_title(each)}", Action.SWITCH, each.id, page),
                _button("✏️", Action.RENAME, each.id, page),
                _button("🗑", Action.ASK_TO_DELETE, each.id, page),
            ]
        )
    turns = [("◀", page - 1)] * (page > 0) + [("▶", page + 1)] * (number > (page + 1) * PAGE_LENGTH)
    if turns:
        rows.append([_button(shown, Action.LIST, 0, to_page) for shown, to_page in turns])
    lines += ["", texts.gettext("Tap a name to ask about that text, ✏️ to rename it, 🗑 to delete it.")]
    return "\n".join(lines), InlineKeyboardMarkup(rows)


def _confirmation(texts: Texts, listed: Listed, page: int) -> tuple[str, InlineKeyboardMarkup]:
    text = texts.gettext("Delete <b>{title}</b> ({chars:,} characters) and all questions about it for good?")
    return fill(text, title=_title(listed), chars=listed.chars), InlineKeyboardMarkup(
        [
            [
                _button(texts.gettext("Delete"), Action.DELETE, listed.id, page),
                _button(texts.gettext("Keep"), Action.LIST, 0, page),
            ]
        ]
    )


def _button(shown: str, action: Action, context_id: int = 0, page: int = 0) -> InlineKeyboardButton:
    return InlineKeyboardButton(cut(shown, MAX_BUTTON_UNITS), callback_data=f"library:{action}:{context_id}:{page}")


def _title(listed: Listed) -> str:
    """A title on one line; that of a text without words would be an empty button."""
    return cut(" ".join(listed.title.split()), MAX_TITLE_UNITS) or "…"
