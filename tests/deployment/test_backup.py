"""docs/operations.md's commands: backups are made and restored, a schema is taken back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
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


def back_up_one_machine(folder: Path) -> subprocess.CompletedProcess[str]:
    """The three lines, in a folder that has a `.venv` as `make run` makes it."""
    program = folder / ".venv/bin/python"
    program.parent.mkdir(parents=True, exist_ok=True)
    if not program.exists():
        program.symlink_to(sys.executable)
    lines = [command(words) for words in ("backup=", "VACUUM INTO", "cp -r data/storage")]
    return subprocess.run(
        ["sh", "-ec", "\n".join(lines)], cwd=folder, capture_output=True, text=True, timeout=60
    )


def test_sqlite_while_the_service_runs_and_again_when_it_has_stopped(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "storage").mkdir(parents=True)
    (data / "storage" / "a.jpg").write_bytes(b"photograph")
    running = Database(f"sqlite:///{data}/captioning.db")
    migrate(running)
    filled = fill(running)
    first = back_up_one_machine(tmp_path)
    running.close()
    time.sleep(1)  # a backup is called by its second
    second = back_up_one_machine(tmp_path)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    backups = list(tmp_path.glob("backup-*"))
    assert len(backups) == 2
    for backup in backups:
        assert (backup / "storage" / "a.jpg").read_bytes() == b"photograph"
        restored = Database(f"sqlite:///{backup}/captioning.db")
        assert_whole(restored, filled)
        restored.close()


def test_a_backup_of_no_database_is_none_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    done = back_up_one_machine(tmp_path)
    assert done.returncode != 0
    assert "unable to open database file" in done.stderr
    assert not list(tmp_path.rglob("*.db"))


def run_in_volume(line: str, volume: Path, folder: Path) -> None:
    """What `docker run` would do with the volume at /data and this folder at /backup."""
    prefix = r'docker run --rm -v captioning_data:/data(:ro)? -v "\$PWD":/backup debian '
    inside = re.sub(f"^{prefix}", "", line)
    assert inside != line
    here = inside.replace("/backup/", f"{folder}/").replace("-C /data", f"-C {volume}")
    subprocess.run(["sh", "-ec", here], check=True, timeout=60)


def test_the_volume_with_all_that_is_in_it_and_its_owner(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for name in ("storage/images/a.jpg", "models/mine/bundle.json", ".cache/huggingface/blob"):
        (old / name).parent.mkdir(parents=True)
        (old / name).write_text(name)
    new.mkdir()  # as Docker makes it for an image that has nothing at /data
    old.chmod(0o750)
    if os.geteuid() == 0:
        os.chown(old, 10001, 10001)
    run_in_volume(command("tar -czf"), old, tmp_path)
    run_in_volume(command("tar -xzf"), new, tmp_path)
    found = {str(path.relative_to(new)) for path in new.rglob("*") if path.is_file()}
    assert found == {"storage/images/a.jpg", "models/mine/bundle.json"}
    for attribute in ("st_mode", "st_uid", "st_gid"):
        assert getattr(new.stat(), attribute) == getattr(old.stat(), attribute)


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
