"""Jobs know what they ask and which revision has answered, so that the same is run once. Those of
before are not found by it: what they answered is run once more."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

RUNNING = sa.text("status = 'running'")
ANSWERED = sa.text("status = 'succeeded' AND asked IS NOT NULL")


def upgrade() -> None:
    op.add_column("job", sa.Column("asked", sa.String(32), nullable=True))
    op.add_column("job", sa.Column("model_revision", sa.String(64), nullable=True))
    op.create_index(
        "ix_job_running_asked", "job", ["asked"], postgresql_where=RUNNING, sqlite_where=RUNNING
    )
    op.create_index(
        "ix_job_answered",
        "job",
        ["asked", "model_revision"],
        postgresql_where=ANSWERED,
        sqlite_where=ANSWERED,
    )


def downgrade() -> None:
    op.drop_index("ix_job_answered", table_name="job")
    op.drop_index("ix_job_running_asked", table_name="job")
    op.drop_column("job", "model_revision")
    op.drop_column("job", "asked")
