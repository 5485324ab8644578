"""Every query that the bot needs, as one class.

Whatever changes a chat first writes that chat's row. PostgreSQL then makes other changes of the same chat
wait, SQLite all others, so that what the transaction reads stays true until it commits.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import ColumnElement, CursorResult, Delete, Update, delete, func, make_url, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from bot.errors import ContextTooLong
from bot.store.connecting import open_engine, reported
from bot.store.models import ChatRow, ContextRow, FeedbackRow, LearningRow, QuestionRow, storable
from bot.store.records import (
    Author,
    Candidate,
    Chat,
    Cleared,
    Context,
    Correction,
    Forgotten,
    Judgement,
    Question,
    Verdict,
)

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
        reply_message_id: int | None = None,
        candidates: "Sequence[Answer]" = (),
    ) -> int | None:
        """Keep a question and the reply that it got; `answer` is None when the paragraph does not say.

        `candidates` are all answers that were found, best first, the given one too.
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
                candidates=[[found.start, found.end, found.score] for found in candidates],
                no_answer_score=no_answer_score,
                checkpoint=checkpoint,
                latency_ms=latency_ms,
                reply_message_id=reply_message_id,
                asked_at=now,
            )
            session.add(row)
            await session.flush()
            return row.id

    async def note_reply(self, question_id: int, message_id: int) -> None:
        """Keep which message answered the question."""
        async with self._transaction() as session:
            answered = update(QuestionRow).where(QuestionRow.id == question_id)
            await session.execute(answered.values(reply_message_id=message_id))

    async def question(self, chat_id: int, question_id: int) -> Question | None:
        """A question of that chat; None where it, or its context, was deleted."""
        return await self._question(chat_id, QuestionRow.id == question_id)

    async def question_asked_back(self, chat_id: int, prompt_message_id: int) -> Question | None:
        """The question whose right answer the bot asked for in that message; None where there is none."""
        asked_back = select(FeedbackRow.question_id).where(FeedbackRow.prompt_message_id == prompt_message_id)
        return await self._question(chat_id, QuestionRow.id.in_(asked_back))

    async def _question(self, chat_id: int, which: ColumnElement[bool]) -> Question | None:
        query = (
            select(QuestionRow, ContextRow)
            .join(ContextRow, ContextRow.id == QuestionRow.context_id)
            .where(QuestionRow.chat_id == chat_id, which)
        )
        async with self._transaction() as session:
            found = (await session.execute(query)).first()
        if found is None:
            return None
        row, context = found
        candidates = tuple(Candidate(int(start), int(end), score) for start, end, score in row.candidates or [])
        given = _span(row.answer_start, row.answer_end)
        if given and not candidates:  # asked before candidates were kept
            candidates = (Candidate(*given, row.answer_score or 0.0),)
        return Question(row.id, _context(context), row.text, given is not None, candidates)

    async def judge(
        self, question: Question, user_id: int, verdict: Verdict, correction: Correction | None = None
    ) -> bool:
        """Keep a user's verdict in place of an earlier one. False, and nothing kept, where the question is gone."""
        async with self._transaction() as session:
            now = datetime.now(UTC)
            await _hold(session, question.context.chat_id, now)
            if await session.get(QuestionRow, question.id) is None:
                return False
            said = {
                "verdict": verdict.value,
                "correct_text": correction.text if correction else None,
                "correct_start": correction.start if correction else None,
                "correct_end": correction.end if correction else None,
                "at": now,
            }
            await session.execute(
                _insert(session)(FeedbackRow)
                .values(question_id=question.id, user_id=user_id, **said)
                .on_conflict_do_update(index_elements=[FeedbackRow.question_id, FeedbackRow.user_id], set_=said)
            )
            return True

    async def note_prompt(self, question_id: int, user_id: int, message_id: int) -> None:
        """Keep in which message the bot asked that user for the right answer."""
        async with self._transaction() as session:
            asked = update(FeedbackRow).where(FeedbackRow.question_id == question_id, FeedbackRow.user_id == user_id)
            await session.execute(asked.values(prompt_message_id=message_id))

    async def judgements(self, since: datetime | None = None) -> list[Judgement]:
        """Every verdict in chats whose texts may teach, given at `since` or later, in the order of their questions."""
        may_teach = LearningRow.is_allowed.is_(True) | (LearningRow.is_allowed.is_(None) & (ChatRow.kind == "private"))
        query = (
            select(FeedbackRow, QuestionRow, ContextRow.text)
            .join(QuestionRow, QuestionRow.id == FeedbackRow.question_id)
            .join(ContextRow, ContextRow.id == QuestionRow.context_id)
            .join(ChatRow, ChatRow.id == QuestionRow.chat_id)
            .outerjoin(LearningRow, LearningRow.chat_id == ChatRow.id)
            .where(may_teach)
            .order_by(QuestionRow.id, FeedbackRow.at, FeedbackRow.user_id)
        )
        if since is not None:
            query = query.where(FeedbackRow.at >= since)
        async with self._transaction() as session:
            return [_judgement(*row) for row in await session.execute(query)]

    async def may_learn(self, chat: Chat) -> bool:
        """Whether the chat's texts may teach: what it has chosen, else yes in private chats and no in groups."""
        async with self._transaction() as session:
            row = await session.get(LearningRow, chat.id)
            return chat.kind == "private" if row is None else row.is_allowed

    async def set_learning(self, chat_id: int, *, is_allowed: bool) -> None:
        """Keep whether the chat's texts, those from before as well, may teach."""
        async with self._transaction() as session:
            said = {"is_allowed": is_allowed, "at": datetime.now(UTC)}
            await session.execute(
                _insert(session)(LearningRow)
                .values(chat_id=chat_id, **said)
                .on_conflict_do_update(index_elements=[LearningRow.chat_id], set_=said)
            )

    async def forget(self, chat_id: int) -> Forgotten:
        """Delete for good all that is known of the chat, its choice about learning too."""
        async with self._transaction() as session:
            await _hold(session, chat_id, datetime.now(UTC))
            asked_there = select(QuestionRow.id).where(QuestionRow.chat_id == chat_id)
            verdicts = await _count(session, delete(FeedbackRow).where(FeedbackRow.question_id.in_(asked_there)))
            questions = await _count(session, delete(QuestionRow).where(QuestionRow.chat_id == chat_id))
            contexts = await _count(session, delete(ContextRow).where(ContextRow.chat_id == chat_id))
            await session.execute(delete(LearningRow).where(LearningRow.chat_id == chat_id))
            await session.execute(delete(ChatRow).where(ChatRow.id == chat_id))
            return Forgotten(contexts, questions, verdicts)

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
            if await session.get(LearningRow, new_chat_id) is None:
                chosen = update(LearningRow).where(LearningRow.chat_id == old_chat_id)
                await session.execute(chosen.values(chat_id=new_chat_id))
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

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[AsyncSession]:
        with reported(self._url):
            async with self._sessions.begin() as session:
                yield session


async def _enter(session: AsyncSession, chat: Chat, now: datetime) -> None:
    """Write the chat's row, new or not: see the module's docstring."""
    known = {"kind": chat.kind, "title": chat.title, "last_active_at": now}
    await session.execute(
        _insert(session)(ChatRow)
        .values(id=chat.id, created_at=now, **known)
        .on_conflict_do_update(index_elements=[ChatRow.id], set_=known)
    )


def _insert(session: AsyncSession) -> Callable[..., sqlite.Insert | postgresql.Insert]:
    """The database's own INSERT, which can update what is there already."""
    return sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert


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


def _judgement(said: FeedbackRow, question: QuestionRow, context: str) -> Judgement:
    given = _span(question.answer_start, question.answer_end)
    verdict, span = Verdict(said.verdict), _span(said.correct_start, said.correct_end)
    right = given if verdict is Verdict.RIGHT else span
    return Judgement(context, question.text, said.user_id, verdict, given, right, said.at)


def _span(start: int | None, end: int | None) -> tuple[int, int] | None:
    return None if start is None or end is None else (start, end)


async def _count(session: AsyncSession, statement: Update | Delete) -> int:
    return cast("CursorResult[Any]", await session.execute(statement)).rowcount
