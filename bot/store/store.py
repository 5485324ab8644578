"""Every query that the bot needs, as one class.

Whatever changes a chat first writes that chat's row. PostgreSQL then makes other changes of the same chat
wait, SQLite all others, so that what the transaction reads stays true until it commits.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import ColumnElement, CursorResult, Delete, Insert, Update, delete, func, make_url, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from bot.errors import ContextTooLong
from bot.store.connecting import open_engine, reported
from bot.store.models import ChatRow, ChatSettingsRow, ContextRow, QuestionRow, Row, UserRow, storable
from bot.store.records import Author, Chat, Cleared, Context, Standing

if TYPE_CHECKING:  # importing it means importing torch
    from qa_engine import Answer


class Store:
    """The chats' paragraphs and questions, in a database that `migrate` has brought up to date.

    Texts lose what no database holds, U+0000 and lone surrogates: offsets count in the text of the `Context`
    that comes back. Every method raises DatabaseUnreachable when the database is away, and StoreError when it
    refuses.
    """

    def __init__(self, database_url: str) -> None:
        """Nothing is connected yet. Raises StoreError where the database's driver is not installed."""
        self._url = make_url(database_url)
        self._engine = open_engine(self._url)
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False)

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    async def set_context(self, chat: Chat, text: str, author: Author, message_id: int | None) -> Context:
        """Make `text` the chat's current paragraph; the one before is kept."""
        async with self._transaction() as session:
            now = datetime.now(UTC)
            await _enter(session, chat, now)
            await _retire_current(session, chat.id, now)
            return await _add_context(session, chat.id, storable(text), author, message_id, now)

    async def append_context(
        self, chat: Chat, text: str, author: Author, max_chars: int, message_id: int | None
    ) -> Context | None:
        """Replace the chat's paragraph by itself, a line break and `text`; None when nothing is set.

        The shorter paragraph is kept, so that every question stays with the very text it was asked about.
        Raises ContextTooLong, and changes nothing, when the result has more than `max_chars` characters.
        """
        async with self._transaction() as session:
            now = datetime.now(UTC)
            await _hold(session, chat.id, now)
            current = await _current(session, chat.id)
            if current is None:
                return None
            whole = f"{current.text}\n{storable(text)}"
            if len(whole) > max_chars:
                raise ContextTooLong(len(whole), max_chars)
            await _retire_current(session, chat.id, now)
            return await _add_context(session, chat.id, whole, author, message_id, now)

    async def current_context(self, chat_id: int) -> Context | None:
        """The chat's paragraph; None when nothing is set."""
        async with self._transaction() as session:
            row = await _current(session, chat_id)
            return None if row is None else _context(row)

    async def clear(self, chat_id: int) -> Cleared:
        """Delete for good all that is known of the chat: its paragraphs, questions, and itself."""
        async with self._transaction() as session:
            await _hold(session, chat_id, datetime.now(UTC))
            questions = await _count(session, delete(QuestionRow).where(QuestionRow.chat_id == chat_id))
            contexts = await _count(session, delete(ContextRow).where(ContextRow.chat_id == chat_id))
            await session.execute(delete(ChatRow).where(ChatRow.id == chat_id))
            return Cleared(contexts=contexts, questions=questions)

    async def record_question(
        self,
        *,
        chat_id: int,
        context_id: int,
        author: Author,
        message_id: int | None,
        text: str,
        answer: "Answer | None",
        no_answer_score: float,
        checkpoint: str,
        latency_ms: float,
        reply_message_id: int | None,
    ) -> int | None:
        """Keep a question and the reply that it got; `answer` is None when the paragraph does not say.

        Returns the question's id; None, with nothing kept, when that context was cleared in the meantime: the
        chat has asked to be forgotten.
        """
        async with self._transaction() as session:
            now = datetime.now(UTC)
            await _hold(session, chat_id, now)
            context = await session.get(ContextRow, context_id)
            if context is None or context.chat_id != chat_id:
                return None
            row = QuestionRow(
                chat_id=chat_id,
                context_id=context_id,
                author_id=author.id,
                message_id=message_id,
                text=text,
                answer_text=answer.text if answer else None,
                answer_start=answer.start if answer else None,
                answer_end=answer.end if answer else None,
                answer_score=answer.score if answer else None,
                no_answer_score=no_answer_score,
                checkpoint=checkpoint,
                latency_ms=latency_ms,
                reply_message_id=reply_message_id,
                asked_at=now,
            )
            session.add(row)
            await session.flush()
            return row.id

    async def questions_answered(self, chat_id: int | None = None) -> int:
        """How many questions of the chat, or of all chats, are kept; abstentions count."""
        query = select(func.count()).select_from(QuestionRow)
        if chat_id is not None:
            query = query.where(QuestionRow.chat_id == chat_id)
        async with self._transaction() as session:
            return (await session.execute(query)).scalar_one()

    async def migrate_chat(self, old_chat_id: int, new_chat_id: int) -> None:
        """Move everything to the id that Telegram gives a group when it becomes a supergroup.

        What was set under the new id before this call stays current. A second call changes nothing.
        """
        async with self._transaction() as session:
            now = datetime.now(UTC)
            await _move_settings(session, old_chat_id, new_chat_id)
            if not await _hold(session, old_chat_id, now):
                return
            old = await session.get_one(ChatRow, old_chat_id)
            await _enter(session, Chat(new_chat_id, "supergroup", old.title), now)
            if await _current(session, new_chat_id) is not None:
                await _retire_current(session, old_chat_id, now)
            for kept in (ContextRow, QuestionRow):
                move = update(kept).where(kept.chat_id == old_chat_id)
                await session.execute(move.values(chat_id=new_chat_id))
            await session.delete(old)

    async def standing(self, user_id: int | None, chat_id: int | None) -> Standing:
        """The user's language and whether the bot has left the chat; what is not known is None."""
        async with self._transaction() as session:
            language = select(UserRow.language).where(UserRow.id == user_id)
            left_at = select(ChatSettingsRow.left_at).where(ChatSettingsRow.chat_id == chat_id)
            return Standing(
                (await session.execute(language)).scalar_one_or_none(),
                (await session.execute(left_at)).scalar_one_or_none(),
            )

    async def set_language(self, user_id: int, language: str | None) -> None:
        """Keep the language that a user chose; None for the one of their Telegram."""
        async with self._transaction() as session:
            await _upsert(session, UserRow, {"id": user_id}, {"language": language})

    async def only_admins_set(self, chat_id: int) -> bool:
        """Whether only the chat's admins may set and clear its paragraph; at first, everyone may."""
        query = select(ChatSettingsRow.only_admins_set).where(ChatSettingsRow.chat_id == chat_id)
        async with self._transaction() as session:
            return bool((await session.execute(query)).scalar_one_or_none())

    async def let_only_admins_set(self, chat_id: int, only_admins_set: bool) -> None:
        async with self._transaction() as session:
            await _upsert(session, ChatSettingsRow, {"chat_id": chat_id}, {"only_admins_set": only_admins_set})

    async def note_membership(self, chat_id: int, left_at: datetime | None) -> None:
        """Keep when the bot was removed from the chat; None when it is there."""
        async with self._transaction() as session:
            await _upsert(session, ChatSettingsRow, {"chat_id": chat_id}, {"left_at": left_at})

    async def refuse_once(self, chat_id: int) -> bool:
        """Note that the chat is being told that the bot is not for it; False where it was told before."""
        changed = {"refused_at": datetime.now(UTC)}
        async with self._transaction() as session:
            is_new = ChatSettingsRow.refused_at.is_(None)
            return await _upsert(session, ChatSettingsRow, {"chat_id": chat_id}, changed, where=is_new) == 1

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncSession]:
        with reported(self._url):
            async with self._sessions.begin() as session:
                yield session


async def _enter(session: AsyncSession, chat: Chat, now: datetime) -> None:
    """Write the chat's row, new or not: see the module's docstring."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    known = {"kind": chat.kind, "title": chat.title, "last_active_at": now}
    await session.execute(
        insert(ChatRow)
        .values(id=chat.id, created_at=now, **known)
        .on_conflict_do_update(index_elements=[ChatRow.id], set_=known)
    )


async def _upsert(
    session: AsyncSession,
    table: type[Row],
    key: dict[str, int],
    changed: Mapping[str, object],
    where: ColumnElement[bool] | None = None,
) -> int:
    """Write a row, new or not, but an old one only `where` that holds. How many rows were written: 0 or 1."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(table).values(**key, **changed)
    statement = statement.on_conflict_do_update(index_elements=list(key), set_=changed, where=where)
    return await _count(session, statement)


async def _move_settings(session: AsyncSession, old_chat_id: int, new_chat_id: int) -> None:
    old = await session.get(ChatSettingsRow, old_chat_id)
    if old is None:
        return
    if await session.get(ChatSettingsRow, new_chat_id) is None:
        session.add(ChatSettingsRow(chat_id=new_chat_id, only_admins_set=old.only_admins_set))
    await session.delete(old)
    await session.flush()


async def _hold(session: AsyncSession, chat_id: int, now: datetime) -> bool:
    """Write the chat's row where there is one, and say whether there is."""
    return await _count(session, update(ChatRow).where(ChatRow.id == chat_id).values(last_active_at=now)) == 1


async def _current(session: AsyncSession, chat_id: int) -> ContextRow | None:
    query = select(ContextRow).where(ContextRow.chat_id == chat_id, ContextRow.replaced_at.is_(None))
    return (await session.execute(query)).scalar_one_or_none()


async def _retire_current(session: AsyncSession, chat_id: int, now: datetime) -> None:
    await session.execute(
        update(ContextRow)
        .where(ContextRow.chat_id == chat_id, ContextRow.replaced_at.is_(None))
        .values(replaced_at=now)
    )


async def _add_context(
    session: AsyncSession, chat_id: int, text: str, author: Author, message_id: int | None, now: datetime
) -> Context:
    row = ContextRow(
        chat_id=chat_id,
        text=text,
        author_id=author.id,
        author_name=author.name,
        message_id=message_id,
        set_at=now,
    )
    session.add(row)
    await session.flush()
    return _context(row)


def _context(row: ContextRow) -> Context:
    author = Author(row.author_id, row.author_name)
    return Context(row.id, row.chat_id, row.text, author, row.message_id, row.set_at)


async def _count(session: AsyncSession, statement: Update | Delete | Insert) -> int:
    return cast("CursorResult[Any]", await session.execute(statement)).rowcount
