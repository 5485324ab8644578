"""Chats, their contexts, and the questions about these.

Revision: 0001, after nothing.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
IS_CURRENT = sa.text("replaced_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "chats",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_active_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_chats"),
    )

    op.create_table(
        "contexts",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("chat_id", sa.BigInteger(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("author_id", sa.BigInteger(), nullable=False),
        sa.Column("author_name", sa.Text(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=True),
        sa.Column("set_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("replaced_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_contexts"),
        sa.ForeignKeyConstraint(["chat_id"], ["chats.id"], name="fk_contexts_chat_id_chats", ondelete="CASCADE"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_contexts_chat_id", "contexts", ["chat_id"])
    op.create_index(
        "uq_contexts_one_current_a_chat",
        "contexts",
        ["chat_id"],
        unique=True,
        postgresql_where=IS_CURRENT,
        sqlite_where=IS_CURRENT,
    )

    op.create_table(
        "questions",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("chat_id", sa.BigInteger(), nullable=False),
        sa.Column("context_id", ROW_ID, nullable=False),
        sa.Column("author_id", sa.BigInteger(), nullable=False),
        sa.Column("message_id", sa.BigInteger(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("answer_text", sa.Text(), nullable=True),
        sa.Column("answer_start", sa.BigInteger(), nullable=True),
        sa.Column("answer_end", sa.BigInteger(), nullable=True),
        sa.Column("answer_score", sa.Float(), nullable=True),
        sa.Column("no_answer_score", sa.Float(), nullable=False),
        sa.Column("checkpoint", sa.Text(), nullable=False),
        sa.Column("latency_ms", sa.Float(), nullable=False),
        sa.Column("reply_message_id", sa.BigInteger(), nullable=True),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_questions"),
        sa.ForeignKeyConstraint(["chat_id"], ["chats.id"], name="fk_questions_chat_id_chats", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["context_id"], ["contexts.id"], name="fk_questions_context_id_contexts", ondelete="CASCADE"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_questions_chat_id", "questions", ["chat_id"])
    op.create_index("ix_questions_context_id", "questions", ["context_id"])


def downgrade() -> None:
    op.drop_table("questions")
    op.drop_table("contexts")
    op.drop_table("chats")
