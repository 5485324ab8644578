"""What users say of answers: the candidates of each question, and the verdicts on it.

Revision: 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    with op.batch_alter_table("questions") as questions:
        questions.add_column(sa.Column("candidates", sa.JSON(), nullable=True))

    op.create_table(
        "feedback",
        sa.Column("question_id", ROW_ID, nullable=False),
        sa.Column("user_id", sa.BigInteger(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("correct_text", sa.Text(), nullable=True),
        sa.Column("correct_start", sa.BigInteger(), nullable=True),
        sa.Column("correct_end", sa.BigInteger(), nullable=True),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("question_id", "user_id", name="pk_feedback"),
        sa.ForeignKeyConstraint(
            ["question_id"], ["questions.id"], name="fk_feedback_question_id_questions", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    op.drop_table("feedback")
    with op.batch_alter_table("questions") as questions:
        questions.drop_column("candidates")
