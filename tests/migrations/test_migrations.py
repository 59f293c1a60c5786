"""The way to the newest schema and back, on both databases."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import func, inspect, select, text

from captioning import jobs
from captioning.database import Database
from captioning.errors import DatabaseUnavailable
from captioning.jobs import CaptionText
from captioning.migrate import downgrade, migrate, require_current
from captioning.models import Base, Batch, Caption, Image
from tests.factories import MODEL, add_jobs, read_job
from tests.servers import postgresql


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any table."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/new.db"
        return
    with postgresql().database() as url:
        yield url


@pytest.fixture
def bare(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


def tables(database: Database) -> set[str]:
    return set(inspect(database.engine).get_table_names()) - {"alembic_version"}


def test_up_down_and_up_again(bare: Database) -> None:
    migrate(bare)
    assert tables(bare) == set(Base.metadata.tables)
    downgrade(bare, "base")
    assert tables(bare) == set()
    migrate(bare)
    assert tables(bare) == set(Base.metadata.tables)
    (job_id,) = add_jobs(bare, 1)
    assert read_job(bare, job_id).status == "queued"


def test_migrating_again_changes_nothing(bare: Database) -> None:
    migrate(bare)
    (job_id,) = add_jobs(bare, 1)
    migrate(bare)
    assert read_job(bare, job_id).status == "queued"


def test_the_migrations_make_what_the_models_say(bare: Database) -> None:
    migrate(bare)
    with bare.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_constraints_and_partial_indexes_are_what_the_models_say(bare: Database) -> None:
    """Alembic compares neither check constraints nor the conditions of indexes."""
    migrate(bare)
    migrated = described(bare)
    downgrade(bare, "base")
    Base.metadata.create_all(bare.engine)
    assert migrated == described(bare)


def described(database: Database) -> set[tuple[str, str]]:
    if database.engine.dialect.name == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    else:
        query = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    found: set[tuple[str, str]] = set()
    with database.engine.connect() as connection:
        for name, definition in connection.execute(text(query)):
            if "alembic" not in name:
                found.add((name, " ".join(definition.split())))
        for table in Base.metadata.tables:
            for check in inspect(connection).get_check_constraints(table):
                found.add((str(check["name"]), " ".join(check["sqltext"].split())))
    return found


def test_a_migration_that_fails_leaves_the_database_as_it_was(
    bare: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("died half-way")

    with monkeypatch.context() as broken:
        broken.setattr(Operations, "create_index", fail)
        with pytest.raises(RuntimeError, match="half-way"):
            migrate(bare)
    assert tables(bare) == set()
    migrate(bare)
    assert tables(bare) == set(Base.metadata.tables)


def test_images_and_batches_get_the_owner_that_their_jobs_have(bare: Database) -> None:
    migrate(bare, "0006")
    with bare.write() as session:
        for owner, name in (("anna", "a"), ("", "b")):
            for line in ROWS_OF_0006:
                session.execute(text(line), {"owner": owner, "id": name})
    migrate(bare)
    with bare.read() as session:
        for table in (Image, Batch):
            owners = session.execute(select(table.id, table.owner)).all()
            assert {(id, owner) for id, owner in owners} == {("a", "anna"), ("b", "")}


ROWS_OF_0006 = (
    "INSERT INTO image (id, filename, sha256, width, height, created_at)"
    " VALUES (:id, 'a.jpg', '', 1, 1, '2026-01-01')",
    "INSERT INTO batch (id, rejected, created_at) VALUES (:id, '[]', '2026-01-01')",
    "INSERT INTO job (id, batch_id, image_id, model, decoding, num_captions, owner, status,"
    " attempts, max_attempts, available_at, created_at) VALUES (:id, :id, :id, 'm', 'beam', 1,"
    " :owner, 'queued', 0, 3, '2026-01-01', '2026-01-01')",
)


MIGRATION_LOCK = 0x636170  # of migrations/env.py, which cannot be imported
MIGRATE = """
import sys
from captioning.database import Database
from captioning.migrate import migrate
print("ready", flush=True)
sys.stdin.readline()
database = Database(sys.argv[1])
migrate(database)
database.close()
"""


@pytest.mark.slow
def test_migrations_at_once_all_end_well(url: str, bare: Database) -> None:
    """In processes, as web and worker would: Alembic's context is one for each process."""
    command = [sys.executable, "-W", "error", "-c", MIGRATE, url]
    processes = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    endings = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]
    assert endings == [("", 0)] * 3
    require_current(bare)
    with bare.read() as session:
        assert session.scalar(text("SELECT count(*) FROM turn")) == 1


@pytest.fixture
def on_postgresql(monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Migrated, with little patience for locks."""
    monkeypatch.setattr("captioning.database.LOCK_TIMEOUT_S", 0.2)
    with postgresql().database() as url:
        database = Database(url)
        migrate(database)
        yield database
        database.close()


def test_a_migration_waits_for_another_however_long_it_takes(on_postgresql: Database) -> None:
    with on_postgresql.write() as other:
        other.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
        with ThreadPoolExecutor(1) as pool:
            second = pool.submit(migrate, on_postgresql)
            with pytest.raises(TimeoutError):
                second.result(timeout=1)
            other.commit()
            second.result(timeout=30)


def test_a_migration_gives_up_where_somebody_holds_a_table(on_postgresql: Database) -> None:
    """Waiting on, it would keep everybody waiting who comes after it."""
    with on_postgresql.write() as other:
        other.execute(text("LOCK TABLE job IN ACCESS SHARE MODE"))
        with pytest.raises(DatabaseUnavailable, match="lock timeout"):
            downgrade(on_postgresql, "base")
    require_current(on_postgresql)


def test_altering_may_take_longer_than_serving(on_postgresql: Database) -> None:
    with on_postgresql.read() as session:
        assert session.scalar(text("SHOW statement_timeout")) == "30s"
    with on_postgresql.alter() as connection:
        assert connection.scalar(text("SHOW statement_timeout")) == "10min"


def test_a_database_without_tables_is_refused_and_told_what_to_do(bare: Database) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"schema none.*captioning migrate"):
        require_current(bare)


def test_a_database_of_another_schema_is_refused(bare: Database) -> None:
    migrate(bare)
    require_current(bare)
    with bare.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    with pytest.raises(DatabaseUnavailable, match=r"0000.*newer release"):
        require_current(bare)


def test_a_database_that_is_behind_is_refused_and_told_what_to_do(bare: Database) -> None:
    migrate(bare, "0001")
    with pytest.raises(DatabaseUnavailable, match=r"schema 0001.*captioning migrate"):
        require_current(bare)


def test_a_broken_sqlite_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(b"these are not the tables you are looking for" * 99)
    database = Database(f"sqlite:///{tmp_path}/broken.db")
    for act in (migrate, require_current):
        with pytest.raises(DatabaseUnavailable) as caught:
            act(database)
        assert "\n" not in str(caught.value)
    database.close()


def test_rebuilding_a_table_on_sqlite_loses_no_row_that_refers_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite alters a table by copying and dropping it, and with foreign keys on, a drop
    deletes what refers to the table: every caption, with the job table."""
    database = Database(f"sqlite:///{tmp_path}/captioning.db")
    migrate(database)
    (job_id,) = add_jobs(database, 1)
    with database.write() as session:
        claim = jobs.claim(session, MODEL, limit=1, lease_s=60)
        assert claim is not None
        jobs.succeed(session, claim.token, {job_id: [CaptionText("a dog", -1)]}, model_revision="r")

    def rebuild(config: object, revision: str) -> None:
        connection = config.attributes["connection"]  # type: ignore[attr-defined]
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table("job", recreate="always"):
            pass

    with monkeypatch.context() as patched:
        patched.setattr("captioning.migrate.command.upgrade", rebuild)
        migrate(database)
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Caption)) == 1
        assert session.scalar(text("PRAGMA foreign_keys")) == 1
    database.close()
