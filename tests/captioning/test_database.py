"""Time, transactions and outages, on both databases."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy import Integer, func, literal_column, select, table, text, update
from sqlalchemy.exc import DataError, IntegrityError, ProgrammingError, StatementError

from captioning.database import Database, UtcDateTime, db_now
from captioning.errors import DatabaseUnavailable
from captioning.models import Image, Job
from tests.chaos.proxy import Proxy
from tests.factories import add_image, add_job, add_jobs, read_job
from tests.servers import postgresql

NOON = datetime(2026, 5, 17, 12, 0, 0, 123000, tzinfo=UTC)


# --- time ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "moment",
    [
        NOON,
        NOON.replace(microsecond=0),
        NOON.astimezone(timezone(timedelta(hours=5, minutes=45))),
        NOON.astimezone(timezone(timedelta(hours=-9))),
        datetime(2032, 2, 29, 23, 59, 59, 999000, tzinfo=UTC),
    ],
)
def test_a_moment_comes_back_as_the_same_moment_in_utc(
    database: Database, moment: datetime
) -> None:
    (job_id,) = add_jobs(database, 1, available_at=moment)
    stored = read_job(database, job_id).available_at
    assert stored == moment
    assert stored.utcoffset() == timedelta(0)


def test_a_naive_moment_is_refused(database: Database) -> None:
    naive = NOON.replace(tzinfo=None)
    with pytest.raises(StatementError, match="naive"):
        add_jobs(database, 1, available_at=naive)


def test_moments_sort_as_time(database: Database) -> None:
    steps_ms = (0, 1, 9, 10, 99, 100, 999, 1000, 59_999, 60_000, 3_600_000, 86_400_000)
    moments = [NOON + timedelta(milliseconds=step) for step in steps_ms]
    with database.write() as session:
        for moment in reversed(moments):
            add_job(session, available_at=moment)
    with database.read() as session:
        assert session.scalars(select(Job.available_at).order_by(Job.available_at)).all() == moments
        later = select(func.count()).where(Job.available_at > moments[5])
        assert session.scalar(later) == len(moments) - 6


def test_the_databases_clock_is_comparable_with_columns(database: Database) -> None:
    (job_id,) = add_jobs(database, 1, available_at=db_now())
    with database.read() as session:
        for offset_s, expected in ((-5, 0), (5, 1), (86_400 * 400, 1), (-86_400 * 400, 0)):
            due = select(func.count()).where(Job.available_at <= db_now(offset_s))
            assert session.scalar(due) == expected, offset_s
    now = datetime.now(UTC)
    assert abs(read_job(database, job_id).available_at - now) < timedelta(minutes=1)


@pytest.mark.parametrize("offset_s", [0, 0.5, -0.25, 90, -3600, 1e6])
def test_offsets_are_seconds(database: Database, offset_s: float) -> None:
    with database.read() as session:
        base, moved = session.execute(select(db_now(), db_now(offset_s))).one()
    assert abs((moved - base).total_seconds() - offset_s) < 0.05


def test_a_statement_about_the_time_is_compiled_once(database: Database) -> None:
    cache: dict[object, object] = {}
    with database.engine.connect() as connection:
        compiling = connection.execution_options(compiled_cache=cache)
        for offset_s in (1, 2.5, -3):
            compiling.execute(select(Job.id).where(Job.available_at <= db_now(offset_s)))
    assert len(cache) == 1


# --- transactions -------------------------------------------------------------------------


def test_a_write_that_raises_is_rolled_back(database: Database) -> None:
    def write_and_raise() -> None:
        with database.write() as session:
            add_image(session)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_raise()
    assert count_images(database) == 0


def test_rows_read_are_usable_after_the_session_has_closed(database: Database) -> None:
    (job_id,) = add_jobs(database, 1)
    job = read_job(database, job_id)
    assert job.image.key == f"images/{job.image_id}.jpg"
    assert job.captions == []


def test_a_read_is_one_snapshot(database: Database) -> None:
    with database.read() as reading:
        before = reading.scalar(select(func.count()).select_from(Image))
        with database.write() as writing:
            add_image(writing)
        after = reading.scalar(select(func.count()).select_from(Image))
    assert before == after == 0
    assert count_images(database) == 1


def test_a_reader_waits_for_no_writer(database: Database) -> None:
    add_jobs(database, 1)
    with database.write() as writing:
        writing.execute(update(Job).values(attempts=7))
        with database.read() as reading:
            assert reading.scalar(select(Job.attempts)) == 0
    with database.read() as reading:
        assert reading.scalar(select(Job.attempts)) == 7


def test_writers_wait_for_each_other_and_none_fails(database: Database) -> None:
    """Read, then write what was read plus one: the pattern that fails half-way on a SQLite
    whose transactions begin as readers."""
    (job_id,) = add_jobs(database, 1)

    def add_one() -> None:
        for _ in range(10):
            with database.write() as session:
                locked = select(Job.attempts).where(Job.id == job_id).with_for_update()
                made = session.scalar(locked) or 0
                session.execute(update(Job).values(attempts=made + 1))

    errors = in_threads(add_one, 6)
    assert errors == []
    assert read_job(database, job_id).attempts == 60


def test_foreign_keys_hold(database: Database) -> None:
    with pytest.raises(IntegrityError):
        add_jobs(database, 1, image_id="0" * 32)


# --- outages ------------------------------------------------------------------------------


def test_a_locked_sqlite_is_unavailable_and_not_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("captioning.database.BUSY_TIMEOUT_S", 0)
    database = Database(f"sqlite:///{tmp_path}/locked.db")
    with database.write() as session:
        session.execute(text("CREATE TABLE t (x INTEGER)"))
        with pytest.raises(DatabaseUnavailable, match="locked"), database.write() as second:
            second.execute(text("SELECT 1"))
    database.close()


@pytest.mark.parametrize("content", [b"not a database at all\n" * 100, b"SQLite format 3\0junk"])
def test_a_broken_sqlite_file_is_unavailable_and_not_a_crash(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "broken.db").write_bytes(content)
    database = Database(f"sqlite:///{tmp_path}/broken.db")
    with pytest.raises(DatabaseUnavailable), database.read() as session:
        session.execute(text("SELECT * FROM job"))
    database.close()


def test_a_sqlite_in_a_folder_that_is_missing_is_unavailable(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/missing/captioning.db")
    with pytest.raises(DatabaseUnavailable, match="unable to open"), database.write() as session:
        session.execute(text("SELECT 1"))
    database.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_glance_at_a_database_that_is_away_is_told_so(tmp_path: Path, kind: str) -> None:
    urls = {
        "sqlite": f"sqlite:///{tmp_path}/missing/captioning.db",
        "postgresql": f"postgresql+psycopg://nobody@/captioning?host={tmp_path}",
    }
    database = Database(urls[kind])
    with pytest.raises(DatabaseUnavailable):
        database.glance(select(Job.id), {})
    database.close()


def test_a_postgresql_that_is_away_is_unavailable_in_one_line(tmp_path: Path) -> None:
    database = Database(f"postgresql+psycopg://nobody@/none?host={tmp_path}")
    with pytest.raises(DatabaseUnavailable) as caught, database.read() as session:
        session.execute(text("SELECT 1"))
    assert "\n" not in str(caught.value)
    database.close()


@pytest.mark.slow
def test_a_postgresql_that_restarts_is_found_again() -> None:
    server = postgresql()
    with server.database() as url:
        database = Database(url)

        def outlive_the_server() -> None:
            with database.write() as session:
                session.execute(text("SELECT 1"))
                server.stop()
                server.start()
                session.execute(text("SELECT 1"))

        with pytest.raises(DatabaseUnavailable):
            outlive_the_server()
        with database.write() as session:
            assert session.scalar(text("SELECT 1")) == 1
        database.close()


@pytest.mark.slow
def test_a_postgresql_that_has_fallen_silent_is_unavailable_until_it_speaks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A frozen host, a firewall that has forgotten: everything is taken, nothing answered."""
    monkeypatch.setattr("captioning.database.CONNECT_TIMEOUT_S", 2)
    monkeypatch.setattr("captioning.database.STATEMENT_TIMEOUT_S", 1)
    monkeypatch.setattr("captioning.database.SILENCE_S", 1)
    network = Proxy(postgresql().socket)
    with postgresql().database() as url, closing(network):
        host = f"host=127.0.0.1&port={network.port}"
        database = Database(f"{url.partition('?')[0]}?{host}")

        def ask() -> None:
            with database.write() as session:
                session.execute(text("SELECT 1"))

        def ask_as_it_falls_silent() -> None:
            with database.write() as session:
                session.execute(text("SELECT 1"))
                network.swallow()
                session.execute(text("SELECT 1"))

        with pytest.raises(DatabaseUnavailable, match="did not answer"):
            ask_as_it_falls_silent()
        with pytest.raises(DatabaseUnavailable):
            ask()  # by a new connection
        network.heal()
        ask()
        network.swallow()
        with pytest.raises(DatabaseUnavailable):
            ask()  # by the one that there is
        network.heal()
        ask()
        database.close()


@pytest.mark.slow
def test_a_glance_at_a_postgresql_that_has_fallen_silent_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("captioning.database.CONNECT_TIMEOUT_S", 2)
    monkeypatch.setattr("captioning.database.SILENCE_S", 1)
    network = Proxy(postgresql().socket)
    one = select(literal_column("1", Integer))
    with postgresql().database() as url, closing(network):
        database = Database(f"{url.partition('?')[0]}?host=127.0.0.1&port={network.port}")
        assert database.glance(one, {}) == [(1,)]
        network.swallow()
        for _ in range(2):  # by the connection that there is, and by a new one
            with pytest.raises(DatabaseUnavailable):
                database.glance(one, {})
        network.heal()
        assert database.glance(one, {}) == [(1,)]
        database.close()


def test_a_glance_that_postgresql_refuses_is_told_why() -> None:
    with postgresql().database() as url:
        database = Database(url)
        for _ in range(2):
            with pytest.raises(ProgrammingError, match="no_such_table"):
                database.glance(
                    select(literal_column("1", Integer)).select_from(table("no_such_table")), {}
                )
        assert database.glance(select(literal_column("1", Integer)), {}) == [(1,)]
        database.close()


def test_a_glance_sees_what_a_column_has_become() -> None:
    with postgresql().database() as url:
        database = Database(url)
        with database.write() as session:
            session.execute(text("CREATE TABLE t (x boolean)"))
            session.execute(text("INSERT INTO t VALUES (true)"))
        asked = select(literal_column("x")).select_from(table("t"))
        assert [list(database.glance(asked, {})) for _ in range(2)] == [[(True,)]] * 2
        with database.write() as session:
            session.execute(text("ALTER TABLE t ALTER x TYPE text USING 't'"))
        assert [list(database.glance(asked, {})) for _ in range(3)] == [[("t",)]] * 3
        database.close()


def test_a_glance_at_what_no_value_of_python_is_fails_as_elsewhere() -> None:
    with postgresql().database() as url:
        database = Database(url)
        asked = select(literal_column("'infinity'::timestamptz", UtcDateTime()))
        for _ in range(2):
            with pytest.raises(DataError, match="too large"):
                database.glance(asked, {})
        database.close()


@pytest.mark.slow
def test_a_glance_that_is_never_quite_silent_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captioning.database.SILENCE_S", 1)
    talking = """DO $$ BEGIN
        CREATE FUNCTION talk() RETURNS integer LANGUAGE plpgsql AS $f$ BEGIN
            FOR i IN 1..40 LOOP PERFORM pg_sleep(0.1); RAISE NOTICE 'still'; END LOOP; RETURN 7;
        END $f$; END $$"""
    with postgresql().database() as url:
        database = Database(url)
        with database.write() as session:
            session.execute(text(talking))
        with pytest.raises(DatabaseUnavailable):
            database.glance(select(literal_column("talk()", Integer)), {})
        database.close()


def test_a_pool_without_a_free_connection_is_unavailable(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/pool.db")
    database.engine.pool._timeout = 0.1  # type: ignore[attr-defined]
    with pytest.raises(DatabaseUnavailable):
        read_deeper_and_deeper(database)
    database.close()


def read_deeper_and_deeper(database: Database, depth: int = 50) -> None:
    with database.read() as session:
        session.execute(text("SELECT 1"))
        if depth:
            read_deeper_and_deeper(database, depth - 1)


def test_many_at_once_may_open_a_database_that_is_new(tmp_path: Path) -> None:
    """The switch to WAL wants the file to itself for a moment."""
    url = f"sqlite:///{tmp_path}/new.db"

    def open_and_write() -> None:
        database = Database(url)
        with database.write() as session:
            session.execute(text("CREATE TABLE IF NOT EXISTS t (x INTEGER)"))
        database.close()

    assert in_threads(open_and_write, 12) == []


def test_the_switch_to_wal_waits_for_who_is_writing(tmp_path: Path) -> None:
    """As two processes that open a new database at once: SQLite itself refuses at once."""
    path = tmp_path / "new.db"
    database = Database(f"sqlite:///{path}")
    first = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    first.execute("BEGIN IMMEDIATE")
    refused = sqlite3.connect(path, timeout=60)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        refused.execute("PRAGMA journal_mode = WAL")
    refused.close()

    end = threading.Timer(0.3, first.execute, ["COMMIT"])
    end.start()
    with database.write() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
    end.join()
    first.close()
    database.close()


# --- helpers ------------------------------------------------------------------------------


def count_images(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Image)) or 0


def in_threads(call: object, count: int) -> list[BaseException]:
    line = threading.Barrier(count)
    errors: list[BaseException] = []

    def run() -> None:
        line.wait()
        try:
            call()  # type: ignore[operator]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors
