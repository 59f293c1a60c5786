"""docs/operations.md's commands: backups are made and restored, a schema is taken back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from captioning import jobs
from captioning.database import Database
from captioning.errors import DatabaseUnavailable
from captioning.jobs import CaptionText
from captioning.migrate import migrate, require_current
from captioning.models import JobStatus
from tests.deployment.files import ROOT, outside
from tests.factories import MODEL, add_jobs, read_job
from tests.servers import PostgreSQL, postgresql

COMMANDS = re.findall(r"^\$ (.+)$", (ROOT / "docs/operations.md").read_text(), flags=re.MULTILINE)


def command(words: str) -> str:
    (found,) = [line for line in COMMANDS if words in line]
    return found


def fill(database: Database) -> tuple[str, str, str]:
    """A job with a caption, one that runs, one that waits."""
    done, running, waiting = add_jobs(database, 3)
    with database.write() as session:
        claim = jobs.claim(session, MODEL, limit=2, lease_s=-1)  # its lease runs out by and by
        assert claim is not None
        jobs.succeed(session, claim.token, {done: [CaptionText("a dog", -1)]}, model_revision="r")
    return done, running, waiting


def assert_whole(database: Database, filled: tuple[str, str, str]) -> None:
    """Everything is there, and goes on."""
    done, running, waiting = filled
    require_current(database)
    assert read_job(database, done).captions[0].text == "a dog"
    with database.write() as session:
        assert jobs.expire_leases(session) == ({running}, set())
    assert read_job(database, waiting).status == JobStatus.QUEUED


def run_in_compose(server: PostgreSQL, line: str, database_url: str, folder: Path) -> None:
    """What `docker compose exec` would run in the container of the database."""
    prefix = "docker compose exec -T database "
    assert line.startswith(prefix)
    name = database_url.partition("?")[0].rpartition("/")[2]
    here = re.sub(r"(?<=--dbname=)captioning|\bcaptioning(?= >)", name, line.removeprefix(prefix))
    assert name in here
    path = f"{server.binaries}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PGHOST": str(server.data), "PATH": path}
    subprocess.run(["sh", "-ec", here], cwd=folder, env=environment, check=True, timeout=60)


@pytest.mark.slow
def test_postgresql(tmp_path: Path) -> None:
    server = postgresql()
    with server.database() as url, server.database() as empty_url:
        database = Database(url)
        migrate(database)
        filled = fill(database)
        database.close()
        run_in_compose(server, command("pg_dump"), url, tmp_path)
        run_in_compose(server, command("pg_restore"), empty_url, tmp_path)
        restored = Database(empty_url)
        assert_whole(restored, filled)
        restored.close()


def test_sqlite_while_the_service_runs(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    running = Database(f"sqlite:///{data}/captioning.db")
    migrate(running)
    filled = fill(running)
    line = command("VACUUM INTO").replace("python ", f"{sys.executable} ", 1)
    subprocess.run(["sh", "-ec", line], cwd=tmp_path, check=True, timeout=60)
    running.close()
    restored = Database(f"sqlite:///{tmp_path}/captioning.backup.db")
    assert_whole(restored, filled)
    restored.close()


@pytest.mark.slow
def test_the_schema_is_taken_back(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/captioning.db")
    migrate(database)
    prefix = "docker compose run --rm --entrypoint python migrate "
    line = command("downgrade").removeprefix(prefix)
    subprocess.run(
        ["sh", "-ec", f"{sys.executable} {line}"],
        env={**outside(), "CAPTIONING_DATA_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=60,
    )
    with pytest.raises(DatabaseUnavailable, match="schema 0002"):
        require_current(database)
    database.close()
