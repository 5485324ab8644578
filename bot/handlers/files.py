"""A file becomes a chat's paragraph: sent alone in a private chat, with the caption /context, or replied to with it.

The download and the reading are bounded, two files at a time; its sender sees one message, which is edited as the
work goes on and ends as the result. How a file is read is left to `bot.documents`.
"""

from pathlib import PurePath

from telegram import Document, InlineKeyboardMarkup, Message, Update
from telegram.error import BadRequest

from bot.documents import Document as ReadDocument
from bot.documents import Limits, read_document
from bot.errors import DocumentRefused, Unreadable
from bot.handlers.conversation import BotContext, author_of, chat_of, command_in, topic_of
from bot.handlers.library import MAX_TITLE_UNITS, buttons_beside
from bot.handlers.paragraphs import how_to_ask
from bot.replies import cut, fill, readable
from bot.settings import Settings
from bot.texts import N_, Texts
from bot.transport import download

REASONS = {
    Unreadable.TOO_LARGE: N_("This file is too large: I take at most {megabytes:.1f} MB."),
    Unreadable.TOO_MANY_PAGES: N_("This PDF has too many pages: {found:,}, and I take at most {limit:,}."),
    Unreadable.TOO_LONG: N_(
        "This file has too much text: I take at most {limit:,} characters. Send the part that you want to ask about."
    ),
    Unreadable.TOO_SLOW: N_("Reading this file took more than {limit} seconds, and I gave up. Is there a simpler one?"),
    Unreadable.TOO_DEMANDING: N_("This file takes more memory than I have for one. Is there a simpler one?"),
    Unreadable.ENCRYPTED: N_("This file is locked with a password. Remove the password and send it again."),
    Unreadable.SCANNED: N_(
        "I find no text in this PDF: its pages are pictures, perhaps scans. Send one whose text can be selected."
    ),
    Unreadable.NO_WORDS: N_("There are no words in this file."),
    Unreadable.BROKEN: N_("This file is broken: it cannot be opened. Save it again, then send it once more."),
    Unreadable.OLD_WORD: N_("This is an old Office file (such as .doc). Save it as .docx and send that."),
    Unreadable.OTHER_FORMAT: N_("I cannot read files of this kind. These work: .txt, .md, .pdf, .docx."),
    Unreadable.NOT_DELIVERED: N_("Telegram did not deliver this file to me. Please send it again."),
}


class Progress:
    """One reply that is edited as the work goes on."""

    def __init__(self, context: BotContext) -> None:
        self._context = context
        self._message: Message | None = None

    async def show(self, html: str, buttons: InlineKeyboardMarkup | None = None) -> int:
        """Show `html` in place of what was shown before; returns the message's id."""
        if self._message is not None:
            try:
                await self._message.edit_text(html, reply_markup=buttons)
                return self._message.id
            except BadRequest:  # someone has deleted it
                pass
        self._message = await self._context.reply(html, buttons)
        return self._message.id


async def take_file(update: Update, context: BotContext) -> None:
    """A file alone in a private chat, or one with the caption /context, behind which its name may stand."""
    message = context.message
    if message.document is None:
        await context.reply(context.texts.gettext(REASONS[Unreadable.OTHER_FORMAT]))
        return
    command = command_in(message.caption or "")
    await _take(context, message.document, command.payload if command else "")


async def take_file_replied_to(update: Update, context: BotContext) -> None:
    """/context as a reply to a file."""
    replied_to = context.message.reply_to_message
    if replied_to is not None and replied_to.document is not None:
        await _take(context, replied_to.document, "")


async def _take(context: BotContext, file: Document, title: str) -> None:
    message, parts, texts = context.message, context.parts, context.texts
    progress = Progress(context)
    await progress.show(texts.gettext("Reading the file…"))

    async def show_pages(pages: int) -> None:
        await progress.show(fill(texts.gettext("Reading {pages:,} pages…"), pages=pages))

    limits = limits_of(parts.settings)
    try:
        async with parts.files_in_turn:
            document = await read_document(await _downloaded(file, limits.max_bytes), limits, show_pages)
    except DocumentRefused as refused:
        await progress.show(told(texts, refused))
        return
    name = PurePath(readable(file.file_name or "")).stem
    paragraph = await parts.store.set_context(
        chat_of(message),
        readable(document.text),
        author_of(message),
        message.id,
        topic_id=topic_of(message),
        title=cut(" ".join((title or name).split()), MAX_TITLE_UNITS) or None,
        source=document.kind,
        page_starts=document.page_starts,
    )
    shown = await progress.show(
        f"{_taken(texts, paragraph.title or '…', document)}\n{how_to_ask(context)}", await buttons_beside(context)
    )
    await parts.store.note_confirmation(paragraph.id, shown)


def limits_of(settings: Settings) -> Limits:
    return Limits(
        max_bytes=settings.max_file_bytes,
        max_pages=settings.max_file_pages,
        max_chars=settings.max_context_chars,
        seconds=settings.file_seconds,
        memory_bytes=settings.file_memory_mb * 2**20,
    )


def told(texts: Texts, refused: DocumentRefused) -> str:
    """What is wrong with a file, in one sentence or two."""
    text = texts.gettext(REASONS[refused.reason])
    return text.format(found=refused.found, limit=refused.limit, megabytes=refused.limit / 1e6)


async def _downloaded(file: Document, max_bytes: int) -> bytes:
    """The file's bytes. Raises DocumentRefused; what size was announced is believed only when it is too large."""
    if (file.file_size or 0) > max_bytes:
        raise DocumentRefused(Unreadable.TOO_LARGE, limit=max_bytes)
    try:
        found = await file.get_file()
    except BadRequest as error:
        reason = Unreadable.TOO_LARGE if "too big" in str(error).lower() else Unreadable.NOT_DELIVERED
        raise DocumentRefused(reason, limit=max_bytes) from error
    return await download(found, max_bytes)


def _taken(texts: Texts, title: str, document: ReadDocument) -> str:
    if pages := len(document.page_starts):
        text = texts.gettext("I have read <b>{title}</b>. Pages: {pages:,}, characters: {chars:,}.")
        return fill(text, title=title, pages=pages, chars=len(document.text))
    return fill(
        texts.gettext("I have read <b>{title}</b>. Characters: {chars:,}."), title=title, chars=len(document.text)
    )
