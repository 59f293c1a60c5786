"""What people write in place of the model's captions; and the way from a job to its key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("edited_text", sa.Text(), nullable=True))
    op.add_column(
        "job", sa.Column("decorative", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.create_index("ix_idempotency_key_made_id", "idempotency_key", ["made_id"])


def downgrade() -> None:
    op.drop_index("ix_idempotency_key_made_id", table_name="idempotency_key")
    op.drop_column("job", "decorative")
    op.drop_column("job", "edited_text")
