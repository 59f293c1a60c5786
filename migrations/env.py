"""Alembic's entry point: runs the migrations on the connection that the caller opened
(captioning/migrate.py), or on CAPTIONING_DATABASE_URL when the `alembic` command is used."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

from captioning.database import Database
from captioning.models import Base
from captioning.settings import load_settings

MIGRATION_LOCK = 0x636170  # any number that no other advisory lock of ours uses


def run(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        # A second migration waits here, then finds nothing left to do. SQLite's BEGIN
        # IMMEDIATE has the same effect. It waits for as long as a migration may take; for
        # the tables, none waits long: behind it, all who use them would stand.
        patience = connection.scalar(text("SHOW lock_timeout"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
        connection.execute(text(f"SET LOCAL lock_timeout = '{patience}'"))
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=True,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    context.run_migrations()


if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    with Database(load_settings().database_url).alter() as connection:
        run(connection)
