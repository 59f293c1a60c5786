"""Access keys, browsers that have shown one, and owners of what lies in the tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from captioning.database import UtcDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

IN_FORCE = sa.text("revoked_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "access_key",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("revoked_at", UtcDateTime(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_access_key")),
        sa.UniqueConstraint("digest", name=op.f("uq_access_key_digest")),
    )
    op.create_index(
        "ix_access_key_name_in_force",
        "access_key",
        ["name"],
        unique=True,
        postgresql_where=IN_FORCE,
        sqlite_where=IN_FORCE,
    )
    op.create_table(
        "sign_in",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["access_key.id"], name=op.f("fk_sign_in_key_id")),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_sign_in")),
    )
    op.create_index("ix_sign_in_key_id", "sign_in", ["key_id"])
    op.create_index("ix_sign_in_expires_at", "sign_in", ["expires_at"])
    for table in ("image", "batch"):
        op.add_column(
            table, sa.Column("owner", sa.String(64), nullable=False, server_default=sa.text("''"))
        )
    op.create_index("ix_job_owner_id", "job", ["owner", "id"])
    # Programs inside the cluster may have named owners of their jobs before.
    for table, column in (("image", "image_id"), ("batch", "batch_id")):
        op.execute(
            f"UPDATE {table} SET owner = (SELECT max(job.owner) FROM job WHERE job.{column} = "  # noqa: S608
            f"{table}.id) WHERE id IN (SELECT {column} FROM job WHERE owner != '')"
        )


def downgrade() -> None:
    op.drop_index("ix_job_owner_id", table_name="job")
    op.drop_column("batch", "owner")
    op.drop_column("image", "owner")
    op.drop_table("sign_in")
    op.drop_table("access_key")
