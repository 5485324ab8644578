"""The tables, as SQLAlchemy rows: chats, their contexts, the questions about these, the verdicts on the answers; what
users and chats have chosen; the updates that wait.

The history that makes these tables stands in alembic/; a test holds the two together.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, DateTime, Dialect, Float, ForeignKey, Index, Integer, MetaData, Text
from sqlalchemy import text as sql_text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


def storable(text: str) -> str:
    """`text` without U+0000, which PostgreSQL refuses, and lone surrogates, which have no encoding."""
    return text.replace("\0", "").encode("utf-8", "ignore").decode("utf-8")


class StorableText(TypeDecorator[str]):
    """Text that every database accepts: see `storable`."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, aware and in UTC on both sides. SQLite keeps no time zone: it is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


# SQLite numbers rows by itself only where the key is declared INTEGER, whatever its size.
RowId = BigInteger().with_variant(Integer, "sqlite")


class Row(DeclarativeBase):
    """Base of all rows. Telegram's ids need 52 bits, so every integer is a BIGINT."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: dict[Any, Any] = {  # noqa: RUF012
        str: StorableText,
        datetime: UtcDateTime,
        int: BigInteger,
        float: Float,
        bool: Boolean,
    }


class ChatRow(Row):
    """A chat that has set a paragraph at least once since its last /clear."""

    __tablename__ = "chats"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # Telegram's own
    kind: Mapped[str]
    title: Mapped[str | None]
    created_at: Mapped[datetime]
    last_active_at: Mapped[datetime]


class ContextRow(Row):
    """A text of a chat, in one of its versions: those that a longer or corrected one took the place of have
    `replaced_at`. Of the others at most one a topic is current; the rest wait to be switched back to.
    """

    __tablename__ = "contexts"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    chat_id: Mapped[int] = mapped_column(ForeignKey("chats.id", ondelete="CASCADE"), index=True)
    text: Mapped[str]
    author_id: Mapped[int]
    author_name: Mapped[str]
    message_id: Mapped[int | None]
    set_at: Mapped[datetime]
    replaced_at: Mapped[datetime | None]
    topic_id: Mapped[int]  # Telegram's message_thread_id; 0 where a chat has no topics: a null is never unique
    origin_id: Mapped[int | None]  # the first version of the same text; null in the first itself
    title: Mapped[str | None]
    source: Mapped[str]  # "message", or what kind of file: "text", "pdf", "docx"
    page_starts: Mapped[list[int] | None] = mapped_column(JSON(none_as_null=True))  # in characters of `text`
    is_current: Mapped[bool]
    used_at: Mapped[datetime]  # when it last became current
    parts: Mapped[int]  # of how many messages the text was joined
    open_until: Mapped[datetime | None]  # messages that its author sends before then belong to the same paste
    confirmation_id: Mapped[int | None]  # the message that told of it

    __table_args__ = (
        Index(
            "uq_contexts_one_current_a_topic",
            "chat_id",
            "topic_id",
            unique=True,
            postgresql_where=sql_text("is_current"),
            sqlite_where=sql_text("is_current"),
        ),
        # A deleted context's id must not come back: an answer on its way would be filed under another text.
        {"sqlite_autoincrement": True},
    )


class QuestionRow(Row):
    """A question about a context and its reply; the answer's columns are null for an abstention."""

    __tablename__ = "questions"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    chat_id: Mapped[int] = mapped_column(ForeignKey("chats.id", ondelete="CASCADE"), index=True)
    context_id: Mapped[int] = mapped_column(ForeignKey("contexts.id", ondelete="CASCADE"), index=True)
    author_id: Mapped[int]
    message_id: Mapped[int | None]
    text: Mapped[str]
    answer_text: Mapped[str | None]
    answer_start: Mapped[int | None]  # in characters of the context's text, as is answer_end
    answer_end: Mapped[int | None]
    answer_score: Mapped[float | None]
    candidates: Mapped[list[list[float]] | None] = mapped_column(JSON)  # [start, end, score], best first
    no_answer_score: Mapped[float]
    checkpoint: Mapped[str]
    latency_ms: Mapped[float]
    reply_message_id: Mapped[int | None]
    asked_at: Mapped[datetime]

    __table_args__ = ({"sqlite_autoincrement": True},)


class FeedbackRow(Row):
    """What one user last said of the answer to a question. `correct_start` is null where the text does not say so."""

    __tablename__ = "feedback"

    question_id: Mapped[int] = mapped_column(
        RowId, ForeignKey("questions.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    user_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    verdict: Mapped[str]
    correct_text: Mapped[str | None]
    correct_start: Mapped[int | None]  # in characters of the context's text, as is correct_end
    correct_end: Mapped[int | None]
    at: Mapped[datetime]


class UpdateRow(Row):
    """An update from Telegram, until it has been handled. Then `body` is null; the row stays until others have come."""

    __tablename__ = "inbox"

    update_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # Telegram's own
    body: Mapped[str | None]  # JSON, as Telegram sent it
    kept_at: Mapped[datetime]
    replays: Mapped[int]  # how often it has been taken up again after a crash


class UserRow(Row):
    """A user who has chosen a language; null again for the one of their Telegram."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # Telegram's own
    language: Mapped[str | None]


class ChatSettingsRow(Row):
    """What holds for a chat whatever it reads: it outlives /clear, and may be there before any context."""

    __tablename__ = "chat_settings"

    chat_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # Telegram's own
    only_admins_set: Mapped[bool | None]  # null where nobody has chosen: everyone may set
    may_teach: Mapped[bool | None]  # null where nobody has chosen: private chats teach, others do not
    left_at: Mapped[datetime | None]
    refused_at: Mapped[datetime | None]
