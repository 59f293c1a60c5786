"""Where to say that a job has ended, what has been said, and how it is signed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from captioning.database import UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

OPEN = sa.text("status IN ('pending', 'sending')")


def upgrade() -> None:
    op.add_column("job", sa.Column("webhook_url", sa.Text(), nullable=True))
    op.create_table(
        "webhook_delivery",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=32), nullable=True),
        sa.Column("batch_id", sa.String(length=32), nullable=True),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("host", sa.String(length=300), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", UtcDateTime(), nullable=False),
        sa.Column("log", sa.JSON(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.CheckConstraint(
            "(job_id IS NULL) != (batch_id IS NULL)",
            name=op.f("ck_webhook_delivery_one_subject"),
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'sending', 'delivered', 'failed')",
            name=op.f("ck_webhook_delivery_status_known"),
        ),
        sa.ForeignKeyConstraint(
            ["job_id"], ["job.id"], name=op.f("fk_webhook_delivery_job_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["batch_id"],
            ["batch.id"],
            name=op.f("fk_webhook_delivery_batch_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_delivery")),
    )
    for columns in (["job_id"], ["batch_id"], ["created_at"], ["owner", "id"]):
        name = f"ix_webhook_delivery_{'_'.join(columns)}"
        op.create_index(name, "webhook_delivery", columns)
    op.create_index(
        "ix_webhook_delivery_open",
        "webhook_delivery",
        ["next_at"],
        postgresql_where=OPEN,
        sqlite_where=OPEN,
    )
    op.create_table(
        "webhook_secret",
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("secret", sa.String(length=100), nullable=False),
        sa.Column("previous", sa.String(length=100), nullable=True),
        sa.Column("changed_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("owner", name=op.f("pk_webhook_secret")),
    )


def downgrade() -> None:
    op.drop_table("webhook_secret")
    op.drop_table("webhook_delivery")
    op.drop_column("job", "webhook_url")
