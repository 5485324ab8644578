"""Several contexts a chat: which one is current, in which topic, from which file, and what a paste is made of.

Revision: 0002, after 0001.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

WAS_CURRENT = sa.text("replaced_at IS NULL")
IS_CURRENT = sa.text("is_current")


def new_columns() -> list[sa.Column[Any]]:
    """Made anew each time: a column belongs to one table."""
    return [
        sa.Column("topic_id", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("origin_id", sa.BigInteger(), nullable=True),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("source", sa.Text(), nullable=False, server_default="message"),
        sa.Column("page_starts", sa.JSON(), nullable=True),
        sa.Column("is_current", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column(
            "used_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("'1970-01-01 00:00:00'")
        ),
        sa.Column("parts", sa.BigInteger(), nullable=False, server_default="1"),
        sa.Column("open_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("confirmation_id", sa.BigInteger(), nullable=True),
    ]


def upgrade() -> None:
    for column in new_columns():
        op.add_column("contexts", column)
    op.execute("UPDATE contexts SET used_at = set_at, is_current = (replaced_at IS NULL)")
    op.drop_index("uq_contexts_one_current_a_chat", "contexts")
    op.create_index(
        "uq_contexts_one_current_a_topic",
        "contexts",
        ["chat_id", "topic_id"],
        unique=True,
        postgresql_where=IS_CURRENT,
        sqlite_where=IS_CURRENT,
    )


def downgrade() -> None:
    """Before, a chat knew one context only; those that are not current, or of a topic, count as replaced."""
    op.execute(
        "UPDATE contexts SET replaced_at = used_at WHERE replaced_at IS NULL AND (topic_id <> 0 OR NOT is_current)"
    )
    op.drop_index("uq_contexts_one_current_a_topic", "contexts")
    for column in reversed(new_columns()):
        op.drop_column("contexts", column.name)
    op.create_index(
        "uq_contexts_one_current_a_chat",
        "contexts",
        ["chat_id"],
        unique=True,
        postgresql_where=WAS_CURRENT,
        sqlite_where=WAS_CURRENT,
    )
