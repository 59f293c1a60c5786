"""A job may limit the words of its captions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("max_words", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("job", "max_words")
