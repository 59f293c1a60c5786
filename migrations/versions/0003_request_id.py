"""Keep the id of the HTTP request with the job."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("request_id", sa.String(64)))


def downgrade() -> None:
    op.drop_column("job", "request_id")
