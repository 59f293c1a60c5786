"""Brings the database to the newest schema. Safe to run twice at once and again."""

from __future__ import annotations

import logging
from importlib.resources import as_file, files

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from captioning.database import Database
from captioning.errors import DatabaseUnavailable

logger = logging.getLogger(__name__)
# It announces its dialect at each look at the schema, and /readyz looks every time.
logging.getLogger("alembic.runtime.migration").setLevel(logging.WARNING)


def migrate(database: Database, revision: str = "head") -> None:
    """Upgrade to `revision`, in one transaction.

    Raises: DatabaseUnavailable.
    """
    with as_file(files("migrations")) as folder, database.alter() as connection:
        config = _config(str(folder))
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, revision)
        except CommandError as error:  # it is at a revision that this code has never heard of
            raise DatabaseUnavailable(str(error)) from error


def downgrade(database: Database, revision: str) -> None:
    """Go back to `revision` ("base" drops every table)."""
    with as_file(files("migrations")) as folder, database.alter() as connection:
        config = _config(str(folder))
        config.attributes["connection"] = connection
        command.downgrade(config, revision)


def require_current(database: Database) -> None:
    """Raises: DatabaseUnavailable when the schema is not the one this code was written for."""
    with as_file(files("migrations")) as folder, database.read() as session:
        scripts = ScriptDirectory.from_config(_config(str(folder)))
        head = scripts.get_current_head()
        known = {None, *(script.revision for script in scripts.walk_revisions())}
        current = MigrationContext.configure(session.connection()).get_current_revision()
    if current != head:
        advice = (
            "run `captioning migrate`"
            if current in known
            else "a newer release has migrated it, run that one"
        )
        raise DatabaseUnavailable(
            f"The database is at schema {current or 'none'}, this code needs {head}: {advice}."
        )


def _config(folder: str) -> Config:
    config = Config()
    config.set_main_option("script_location", folder.replace("%", "%%"))
    return config
