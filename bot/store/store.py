"""Every query that the bot needs, as one class.

Whatever changes a chat first writes that chat's row. PostgreSQL then makes other changes of the same chat
wait, SQLite all others, so that what the transaction reads stays true until it commits.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Delete,
    Insert,
    Select,
    Update,
    delete,
    func,
    make_url,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from bot.errors import ContextTooLong
from bot.store.connecting import open_engine, reported
from bot.store.models import (
    ChatRow,
    ChatSettingsRow,
    ContextRow,
    FeedbackRow,
    QuestionRow,
    Row,
    UpdateRow,
    UserRow,
    storable,
)
from bot.store.records import (
    Author,
    Candidate,
    Chat,
    Cleared,
    Context,
    Correction,
    Forgotten,
    Judgement,
    Listed,
    Question,
    Standing,
    Verdict,
)

TITLE_CHARS = 80  # of a text that has no title

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

    async def set_context(
        self,
        chat: Chat,
        text: str,
        author: Author,
        message_id: int | None,
        *,
        topic_id: int = 0,
        title: str | None = None,
        source: str = "message",
        page_starts: Sequence[int] = (),
        open_until: datetime | None = None,
    ) -> Context:
        """Make `text` the current paragraph of the chat, or of its topic; those before are kept.

        A text that the same message set before, and that was edited since, is replaced. Messages that the author
        sends until `open_until` can be joined to the text: see `join_part`.
        """
        async with self._transaction() as session:
            now = datetime.now(UTC)
            await _enter(session, chat, now)
            before = await _set_by(session, chat.id, message_id)
            row = _new_row(chat.id, storable(text), author, message_id, now)
            row.topic_id, row.source = topic_id, source
            row.title = title or (before.title if before else None)
            row.page_starts = list(page_starts) or None
            row.open_until = open_until
            return await _put(session, row, before, now)

    async def append_context(
        self, chat: Chat, text: str, author: Author, max_chars: int, message_id: int | None, *, topic_id: int = 0
    ) -> Context | None:
        """Replace the chat's paragraph by itself, a line break and `text`; None when nothing is set.

        The shorter paragraph is kept, so that every question stays with the very text it was asked about.
        Raises ContextTooLong, and changes nothing, when the result has more than `max_chars` characters.
        """
        async with self._transaction() as session:
            now = datetime.now(UTC)
            await _hold(session, chat.id, now)
            current = await _current(session, chat.id, topic_id)
            if current is None:
                return None
            if message_id is not None and current.message_id == message_id:  # replayed after a crash
                return _context(current)
            whole = f"{current.text}\n{storable(text)}"
            if len(whole) > max_chars:
                raise ContextTooLong(len(whole), max_chars)
            return await _put(session, _new_row(chat.id, whole, author, message_id, now, current), current, now)

    async def join_part(
        self,
        chat_id: int,
        topic_id: int,
        author: Author,
        message_id: int,
        sent_at: datetime,
        text: str,
        max_chars: int,
        open_until: datetime | None,
        trimmed_id: int | None = None,
    ) -> Context | None:
        """Put `text` directly behind the current paragraph, if that is a paste which the message continues.

        It does where the paragraph's last part is the author's, and was open for more when this one was sent; it
        stays open until `open_until`. A line break comes between where the last part is the message `trimmed_id`.
        None where nothing is continued. What goes beyond `max_chars` is left out.
        """
        async with self._transaction() as session:
            now = datetime.now(UTC)
            await _hold(session, chat_id, now)
            row = await _current(session, chat_id, topic_id)
            if row is not None and row.message_id == message_id and row.parts > 1:  # replayed after a crash
                return _context(row)
            if row is None or row.author_id != author.id or row.message_id is None or row.message_id >= message_id:
                return None
            if row.open_until is None or sent_at > row.open_until:
                return None
            between = "\n" if row.message_id == trimmed_id else ""
            whole = (row.text + between + storable(text))[:max_chars]
            joined = _new_row(chat_id, whole, author, message_id, now, row)
            joined.parts, joined.open_until, joined.confirmation_id = row.parts + 1, open_until, row.confirmation_id
            return await _put(session, joined, row, now)

    async def has_grown(self, chat_id: int, topic_id: int, message_id: int) -> bool:
        """Whether the current paragraph began with that message, or grew by it, and has got more text since."""
        async with self._transaction() as session:
            row = await _current(session, chat_id, topic_id)
            if row is None or row.message_id == message_id:
                return False
            before = _versions(row).where(ContextRow.message_id == message_id)
            return (await session.execute(before)).first() is not None

    async def note_confirmation(self, context_id: int, message_id: int) -> None:
        """Remember which message told of the context, so that it can be edited."""
        async with self._transaction() as session:
            note = update(ContextRow).where(ContextRow.id == context_id).values(confirmation_id=message_id)
            await session.execute(note)

    async def current_context(self, chat_id: int, topic_id: int = 0) -> Context | None:
        """The paragraph of the chat, or of its topic; None when nothing is set."""
        async with self._transaction() as session:
            row = await _current(session, chat_id, topic_id)
            return None if row is None else _context(row)

    async def context_answered_from(self, chat_id: int, reply_message_id: int) -> Context | None:
        """The context that the answer in that message was found in; None where it is no answer, or was replaced."""
        query = (
            select(ContextRow)
            .join(QuestionRow, QuestionRow.context_id == ContextRow.id)
            .where(QuestionRow.chat_id == chat_id, QuestionRow.reply_message_id == reply_message_id)
            .limit(1)
        )
        async with self._transaction() as session:
            row = (await session.execute(query)).scalar_one_or_none()
            if row is not None and row.replaced_at is not None:
                versions = _versions(row).where(ContextRow.replaced_at.is_(None))
                row = (await session.execute(versions)).scalars().first() or row
            return None if row is None else _context(row)

    async def contexts(self, chat_id: int, topic_id: int, offset: int, limit: int) -> tuple[list[Listed], int]:
        """The contexts of the chat, or of its topic, the last used first: some of them, and how many there are."""
        kept = (
            ContextRow.chat_id == chat_id,
            ContextRow.topic_id == topic_id,
            ContextRow.replaced_at.is_(None),
        )
        title = func.coalesce(ContextRow.title, func.substr(ContextRow.text, 1, TITLE_CHARS))
        query = (
            select(ContextRow.id, title, func.length(ContextRow.text), ContextRow.set_at, ContextRow.is_current)
            .where(*kept)
            .order_by(ContextRow.used_at.desc(), ContextRow.id.desc())
            .offset(offset)
            .limit(limit)
        )
        async with self._transaction() as session:
            listed = [Listed(*row) for row in (await session.execute(query)).all()]
            count = select(func.count()).select_from(ContextRow).where(*kept)
            return listed, (await session.execute(count)).scalar_one()

    async def listed(self, chat_id: int, context_id: int) -> Listed | None:
        """The context as the chat's list has it; None where that chat has no such context any more."""
        async with self._transaction() as session:
            row = await _kept(session, chat_id, context_id)
            if row is None:
                return None
            title = row.title or row.text[:TITLE_CHARS]
            return Listed(row.id, title, len(row.text), row.set_at, row.is_current)

    async def switch_context(self, chat_id: int, context_id: int) -> bool:
        """Make a context of the chat current in its topic; whether there is such a context."""
        async with self._transaction() as session:
            now = datetime.now(UTC)
            await _hold(session, chat_id, now)
            row = await _kept(session, chat_id, context_id)
            if row is None:
                return False
            await _retire_current(session, chat_id, row.topic_id)
            row.is_current, row.used_at, row.open_until = True, now, None
            return True

    async def rename_context(self, chat_id: int, context_id: int, title: str) -> bool:
        """Give a context of the chat another title; whether there is such a context."""
        async with self._transaction() as session:
            await _hold(session, chat_id, datetime.now(UTC))
            row = await _kept(session, chat_id, context_id)
            if row is not None:
                row.title = storable(title)
            return row is not None

    async def delete_context(self, chat_id: int, context_id: int) -> bool:
        """Delete a context of the chat for good, with all its versions and the questions about them.

        Where it was current, the one used before it becomes current. Returns whether there was such a context.
        """
        async with self._transaction() as session:
            now = datetime.now(UTC)
            await _hold(session, chat_id, now)
            row = await _kept(session, chat_id, context_id)
            if row is None:
                return False
            topic_id, was_current = row.topic_id, row.is_current
            versions = [version.id for version in (await session.execute(_versions(row))).scalars()]
            await session.execute(delete(QuestionRow).where(QuestionRow.context_id.in_(versions)))
            await session.execute(delete(ContextRow).where(ContextRow.id.in_(versions)))
            if was_current:
                query = (
                    select(ContextRow)
                    .where(ContextRow.chat_id == chat_id, ContextRow.topic_id == topic_id)
                    .where(ContextRow.replaced_at.is_(None))
                    .order_by(ContextRow.used_at.desc(), ContextRow.id.desc())
                    .limit(1)
                )
                before = (await session.execute(query)).scalar_one_or_none()
                if before is not None:
                    before.is_current = True
            return True

    async def clear(self, chat_id: int) -> Cleared:
        """Delete for good the chat's paragraphs and questions; what it has chosen in /privacy and /settings stays."""
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
        candidates: "Sequence[Answer]" = (),
    ) -> int | None:
        """Keep a question and what was found; `answer` is None when the paragraph does not say.

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
        query = (
            select(QuestionRow, ContextRow)
            .join(ContextRow, ContextRow.id == QuestionRow.context_id)
            .where(QuestionRow.chat_id == chat_id, QuestionRow.id == question_id)
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
            await _upsert(session, FeedbackRow, {"question_id": question.id, "user_id": user_id}, said)
            return True

    async def judgements(self, since: datetime | None = None) -> list[Judgement]:
        """Every verdict in chats whose texts may teach, given at `since` or later, in the order of their questions."""
        may_teach = func.coalesce(ChatSettingsRow.may_teach, ChatRow.kind == "private")
        query = (
            select(FeedbackRow, QuestionRow, ContextRow.text)
            .join(QuestionRow, QuestionRow.id == FeedbackRow.question_id)
            .join(ContextRow, ContextRow.id == QuestionRow.context_id)
            .join(ChatRow, ChatRow.id == QuestionRow.chat_id)
            .outerjoin(ChatSettingsRow, ChatSettingsRow.chat_id == ChatRow.id)
            .where(may_teach)
            .order_by(QuestionRow.id, FeedbackRow.at, FeedbackRow.user_id)
        )
        if since is not None:
            query = query.where(FeedbackRow.at >= since)
        async with self._transaction() as session:
            return [_judgement(*row) for row in await session.execute(query)]

    async def may_learn(self, chat: Chat) -> bool:
        """Whether the chat's texts may teach: what it has chosen, else yes in private chats and no in groups."""
        query = select(ChatSettingsRow.may_teach).where(ChatSettingsRow.chat_id == chat.id)
        async with self._transaction() as session:
            chosen = (await session.execute(query)).scalar_one_or_none()
            return chat.kind == "private" if chosen is None else chosen

    async def set_learning(self, chat_id: int, *, is_allowed: bool) -> None:
        """Keep whether the chat's texts, those from before as well, may teach."""
        async with self._transaction() as session:
            await _upsert(session, ChatSettingsRow, {"chat_id": chat_id}, {"may_teach": is_allowed})

    async def forget(self, chat_id: int) -> Forgotten:
        """Delete for good all that is known of the chat, what it has chosen in /privacy and /settings too."""
        async with self._transaction() as session:
            await _hold(session, chat_id, datetime.now(UTC))
            asked_there = select(QuestionRow.id).where(QuestionRow.chat_id == chat_id)
            verdicts = await _count(session, delete(FeedbackRow).where(FeedbackRow.question_id.in_(asked_there)))
            questions = await _count(session, delete(QuestionRow).where(QuestionRow.chat_id == chat_id))
            contexts = await _count(session, delete(ContextRow).where(ContextRow.chat_id == chat_id))
            await session.execute(delete(ChatSettingsRow).where(ChatSettingsRow.chat_id == chat_id))
            await session.execute(delete(ChatRow).where(ChatRow.id == chat_id))
            return Forgotten(contexts, questions, verdicts)

    async def keep_updates(self, updates: Mapping[int, str]) -> set[int]:
        """Keep updates from Telegram, by their ids, until they are dropped; returns those that have not come before.

        A dropped one that does not come again here never will: its id is deleted.
        """
        async with self._transaction() as session:
            numbers = list(updates)
            gone = UpdateRow.body.is_(None) & UpdateRow.update_id.not_in(numbers)
            await session.execute(delete(UpdateRow).where(gone))
            known = await session.scalars(select(UpdateRow.update_id).where(UpdateRow.update_id.in_(numbers)))
            new = updates.keys() - set(known)
            now = datetime.now(UTC)
            session.add_all(UpdateRow(update_id=number, body=updates[number], kept_at=now, replays=0) for number in new)
            return new

    async def updates_left(self, since: datetime) -> list[tuple[int, int, str]]:
        """Updates kept `since` and not dropped, oldest first: id, how often it was given out here, and body.

        Older ones are dropped.
        """
        async with self._transaction() as session:
            await session.execute(update(UpdateRow).where(UpdateRow.kept_at < since).values(body=None))
            left = UpdateRow.body.is_not(None)
            await session.execute(update(UpdateRow).where(left).values(replays=UpdateRow.replays + 1))
            rows = await session.scalars(select(UpdateRow).where(left).order_by(UpdateRow.update_id))
            return [(row.update_id, row.replays, row.body or "") for row in rows]

    async def drop_update(self, update_id: int) -> None:
        """Delete what the update said. Its id stays: Telegram may not know yet that it has come."""
        async with self._transaction() as session:
            await session.execute(update(UpdateRow).where(UpdateRow.update_id == update_id).values(body=None))

    async def questions_answered(self, chat_id: int | None = None) -> int:
        """How many questions of the chat, or of all chats, are kept; abstentions count."""
        query = select(func.count()).select_from(QuestionRow)
        if chat_id is not None:
            query = query.where(QuestionRow.chat_id == chat_id)
        async with self._transaction() as session:
            return (await session.execute(query)).scalar_one()

    async def migrate_chat(self, old_chat_id: int, new_chat_id: int) -> None:
        """Move everything to the id that Telegram gives a group when it becomes a supergroup.

        What was set under the new id before this call stays current. A second call changes nothing. Messages are
        numbered anew there, so that what is moved knows of none.
        """
        async with self._transaction() as session:
            now = datetime.now(UTC)
            is_known = await _hold(session, old_chat_id, now)
            await _move_settings(session, old_chat_id, new_chat_id)
            if not is_known:
                return
            old = await session.get_one(ChatRow, old_chat_id)
            await _enter(session, Chat(new_chat_id, "supergroup", old.title), now)
            if await _current(session, new_chat_id) is not None:
                await _retire_current(session, old_chat_id)  # a plain group has no topics
            contexts = update(ContextRow).where(ContextRow.chat_id == old_chat_id)
            unknown = {"message_id": None, "confirmation_id": None, "open_until": None}
            await session.execute(contexts.values(chat_id=new_chat_id, **unknown))
            questions = update(QuestionRow).where(QuestionRow.chat_id == old_chat_id)
            await session.execute(questions.values(chat_id=new_chat_id, message_id=None, reply_message_id=None))
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
    known = {"kind": chat.kind, "title": chat.title, "last_active_at": now}
    await _upsert(session, ChatRow, {"id": chat.id}, known, new={"created_at": now})


async def _upsert(
    session: AsyncSession,
    table: type[Row],
    key: Mapping[str, int],
    changed: Mapping[str, object],
    *,
    new: Mapping[str, object] = MappingProxyType({}),
    where: ColumnElement[bool] | None = None,
) -> int:
    """Write a row, a new one with `new` as well, an old one only `where` that holds; returns how many: 0 or 1."""
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(table).values(**key, **changed, **new)
    statement = statement.on_conflict_do_update(index_elements=list(key), set_=changed, where=where)
    return await _count(session, statement)


async def _move_settings(session: AsyncSession, old_chat_id: int, new_chat_id: int) -> None:
    """What has been chosen under the new id stays."""
    old = await session.get(ChatSettingsRow, old_chat_id)
    if old is None:
        return
    new = await session.get(ChatSettingsRow, new_chat_id)
    if new is None:
        new = ChatSettingsRow(chat_id=new_chat_id)
        session.add(new)
    if new.only_admins_set is None:
        new.only_admins_set = old.only_admins_set
    if new.may_teach is None:
        new.may_teach = old.may_teach
    await session.delete(old)
    await session.flush()


async def _hold(session: AsyncSession, chat_id: int, now: datetime) -> bool:
    """Write the chat's row where there is one, and say whether there is."""
    return await _count(session, update(ChatRow).where(ChatRow.id == chat_id).values(last_active_at=now)) == 1


async def _current(session: AsyncSession, chat_id: int, topic_id: int = 0) -> ContextRow | None:
    query = select(ContextRow).where(
        ContextRow.chat_id == chat_id, ContextRow.topic_id == topic_id, ContextRow.is_current
    )
    return (await session.execute(query)).scalar_one_or_none()


async def _retire_current(session: AsyncSession, chat_id: int, topic_id: int = 0) -> None:
    await session.execute(
        update(ContextRow)
        .where(ContextRow.chat_id == chat_id, ContextRow.topic_id == topic_id, ContextRow.is_current)
        .values(is_current=False)
    )


async def _kept(session: AsyncSession, chat_id: int, context_id: int) -> ContextRow | None:
    """The chat's context of that id, in its last version."""
    row = await session.get(ContextRow, context_id)
    return row if row is not None and row.chat_id == chat_id and row.replaced_at is None else None


async def _set_by(session: AsyncSession, chat_id: int, message_id: int | None) -> ContextRow | None:
    """The kept context that the message has set."""
    if message_id is None:
        return None
    query = select(ContextRow).where(
        ContextRow.chat_id == chat_id, ContextRow.message_id == message_id, ContextRow.replaced_at.is_(None)
    )
    return (await session.execute(query)).scalars().first()


def _versions(row: ContextRow) -> Select[ContextRow]:
    """All versions of the text that `row` is one of."""
    origin_id = row.origin_id or row.id
    return select(ContextRow).where(
        ContextRow.chat_id == row.chat_id, or_(ContextRow.id == origin_id, ContextRow.origin_id == origin_id)
    )


def _new_row(
    chat_id: int,
    text: str,
    author: Author,
    message_id: int | None,
    now: datetime,
    like: ContextRow | None = None,
) -> ContextRow:
    """A context that is to be put; topic, title, source and pages are those of `like`."""
    return ContextRow(
        chat_id=chat_id,
        text=text,
        author_id=author.id,
        author_name=author.name,
        message_id=message_id,
        set_at=now,
        used_at=now,
        parts=1,
        topic_id=like.topic_id if like else 0,
        title=like.title if like else None,
        source=like.source if like else "message",
        page_starts=like.page_starts if like else None,
    )


async def _put(session: AsyncSession, row: ContextRow, before: ContextRow | None, now: datetime) -> Context:
    """Store `row` as the current context of its topic, in place of its version `before`, if there is one."""
    if before is not None:
        before.replaced_at, before.is_current = now, False
        row.origin_id = before.origin_id or before.id
        await session.flush()
    await _retire_current(session, row.chat_id, row.topic_id)
    row.is_current = True
    session.add(row)
    await session.flush()
    return _context(row)


def _context(row: ContextRow) -> Context:
    return Context(
        row.id,
        row.chat_id,
        row.text,
        Author(row.author_id, row.author_name),
        row.message_id,
        row.set_at,
        row.topic_id,
        row.title,
        row.source,
        tuple(row.page_starts or ()),
        row.parts,
        row.confirmation_id,
    )


def _judgement(said: FeedbackRow, question: QuestionRow, context: str) -> Judgement:
    given = _span(question.answer_start, question.answer_end)
    verdict, span = Verdict(said.verdict), _span(said.correct_start, said.correct_end)
    right = given if verdict is Verdict.RIGHT else span
    return Judgement(context, question.text, said.user_id, verdict, given, right, said.at)


def _span(start: int | None, end: int | None) -> tuple[int, int] | None:
    return None if start is None or end is None else (start, end)


async def _count(session: AsyncSession, statement: Update | Delete | Insert) -> int:
    return cast("CursorResult[Any]", await session.execute(statement)).rowcount
