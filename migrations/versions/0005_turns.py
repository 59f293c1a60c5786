"""Jobs get a priority, an owner and a place in the queue. Claims of the version before find no
index of their own any more: slower, and right."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

QUEUED = sa.text("status = 'queued'")
OWNED = sa.text("status = 'queued' AND owner != ''")


def upgrade() -> None:
    op.add_column(
        "job", sa.Column("owner", sa.String(64), nullable=False, server_default=sa.text("''"))
    )
    op.add_column("job", sa.Column("priority", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("job", sa.Column("place", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_index(
        "ix_job_queued_place",
        "job",
        ["model", "priority", "place", "id"],
        postgresql_where=QUEUED,
        sqlite_where=QUEUED,
    )
    op.create_index(
        "ix_job_queued_owner",
        "job",
        ["owner", "model", "priority", "place"],
        postgresql_where=OWNED,
        sqlite_where=OWNED,
    )
    op.drop_index("ix_job_queued", table_name="job")


def downgrade() -> None:
    op.create_index(
        "ix_job_queued", "job", ["model", "id"], postgresql_where=QUEUED, sqlite_where=QUEUED
    )
    op.drop_index("ix_job_queued_owner", table_name="job")
    op.drop_index("ix_job_queued_place", table_name="job")
    op.drop_column("job", "place")
    op.drop_column("job", "priority")
    op.drop_column("job", "owner")
