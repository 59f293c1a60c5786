"""One engine, and transactions on it. Domain functions take a Session and never commit:
the edge (a view, a task, a command) opens the transaction here.

SQLite is a first-class citizen: WAL, a busy timeout, and BEGIN IMMEDIATE for writers, so
that two writers wait for each other instead of failing half-way (`SQLITE_BUSY` on upgrade).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import (
    URL,
    Boolean,
    Connection,
    DateTime,
    Dialect,
    Engine,
    Float,
    Select,
    String,
    create_engine,
    event,
    literal,
    make_url,
)
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import DatabaseError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import ORMExecuteState, Session
from sqlalchemy.orm.interfaces import ORMOption
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

from captioning.errors import DatabaseUnavailable
from captioning.glances import Glances, Unanswered

BUSY_TIMEOUT_S = 15
BUSY_PAUSE_S = 0.02
CONNECT_TIMEOUT_S = 5
LOCK_TIMEOUT_S = 10
STATEMENT_TIMEOUT_S = 30
SILENCE_S = 5
"""How much longer than its own timeouts to wait for a PostgreSQL that does not even say that they
have run out. As long for the ping of a connection that is taken into use."""
ALTER_TIMEOUT_S = 600
"""A statement that alters tables may have millions of rows to read: for a new index, say."""
NO_WRITES = ("25006", "0A000")
"""SQLSTATEs of a PostgreSQL that takes no writes, and of a standby that is asked whether it
would (feature_not_supported, of which we use nothing else)."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime, to the millisecond.

    PostgreSQL has the type. SQLite gets text that sorts like time and that its own
    strftime() writes alike, so that the database's clock can be compared with the column.

    Raises: ValueError (in a StatementError) for a naive datetime, which names no moment.
    """

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "sqlite":
            return dialect.type_descriptor(String(23))
        return dialect.type_descriptor(DateTime(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a naive datetime names no moment")
        if dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if isinstance(value, str):
            return datetime.fromisoformat(value).replace(tzinfo=UTC)
        aware: datetime = value
        return aware.astimezone(UTC)


class db_now(FunctionElement[datetime]):
    """The database's clock, plus `offset_s` seconds: the only clock that decides anything,
    because workers on several machines need not agree on the time."""

    type = UtcDateTime()
    inherit_cache = True  # statements that differ by a parameter only are compiled once

    def __init__(self, offset_s: float = 0) -> None:
        super().__init__(*([literal(offset_s, Float)] if offset_s else []))


@compiles(db_now, "postgresql")
def _now_on_postgresql(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    offset_s = compiler.process(element.clauses, **kw)
    return f"(clock_timestamp() + {offset_s or 0} * interval '1 second')"


@compiles(db_now, "sqlite")
def _now_on_sqlite(element: db_now, compiler: SQLCompiler, **kw: Any) -> str:
    offset_s = compiler.process(element.clauses, **kw)
    return f"strftime('%Y-%m-%d %H:%M:%f', 'now', printf('%+.3f seconds', {offset_s or 0}))"


class try_to_hold(FunctionElement[bool]):
    """Hold a name until the transaction ends, or false where another holds it: nobody waits.
    Whoever wrote under the name before has committed: a later statement sees what they wrote."""

    type = Boolean()
    inherit_cache = True


@compiles(try_to_hold, "postgresql")
def _try_on_postgresql(element: try_to_hold, compiler: SQLCompiler, **kw: Any) -> str:
    name = compiler.process(element.clauses, **kw)
    return f"pg_try_advisory_xact_lock(hashtextextended({name}, 0))"


@compiles(try_to_hold, "sqlite")
def _try_on_sqlite(element: try_to_hold, compiler: SQLCompiler, **kw: Any) -> str:
    return "1"  # there is one writer at a time


def storable(text: str) -> str:
    """The text as every database keeps it: PostgreSQL refuses NUL, and half a surrogate pair
    has no UTF-8."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _prepare_sqlite(engine: Engine, foreign_keys: bool) -> None:
    @event.listens_for(engine, "connect")
    def _on_connect(connection: DBAPIConnection, record: object) -> None:
        # None: the driver must not begin transactions by itself; _on_begin does.
        connection.isolation_level = None
        connection.create_function("lower", 1, _lower, deterministic=True)
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
        _switch_to_wal(cursor)
        # FULL: an upload that was answered 202 outlives a power cut, not only a kill.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute(f"PRAGMA foreign_keys = {foreign_keys:d}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Any) -> None:
        options = connection.get_execution_options()
        if not options.get("glancing"):
            connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("writing") else "BEGIN")


def _lower(text: str | None) -> str | None:
    """SQLite's own knows the letters of ASCII only."""
    return None if text is None else text.lower()


def _switch_to_wal(cursor: DBAPICursor) -> None:
    """The switch first reads which mode the file is in, then locks it to change that. Of two
    who do so at once, SQLite refuses one without waiting: it holds the read lock that the
    other waits for."""
    give_up_at = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > give_up_at:
                raise
        time.sleep(BUSY_PAUSE_S)


def make_engine(
    url: str | URL, *, foreign_keys: bool = True, statement_timeout_s: float | None = None
) -> Engine:
    """An engine for `sqlite:///…` or `postgresql+psycopg://…`; connects on first use."""
    if make_url(url).get_backend_name() == "sqlite":
        engine = create_engine(url)
        _prepare_sqlite(engine, foreign_keys)
        return engine
    timeouts_s = {
        "statement_timeout": statement_timeout_s or STATEMENT_TIMEOUT_S,
        "lock_timeout": LOCK_TIMEOUT_S,
        # Idle in a transaction is only a process that stands still: its locks are let go.
        "idle_in_transaction_session_timeout": STATEMENT_TIMEOUT_S,
    }
    engine = create_engine(
        url,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "options": " ".join(
                f"-c {name}={seconds * 1000:.0f}" for name, seconds in timeouts_s.items()
            ),
        },
    )
    _be_patient(engine, timeouts_s["statement_timeout"] + SILENCE_S)
    return engine


def _make_glancing_engine(url: str | URL) -> Engine:
    """One on which nothing is begun or pinged, and nobody waits for a connection: a glance that is
    not answered is asked again elsewhere."""
    if make_url(url).get_backend_name() == "sqlite":
        engine = create_engine(url, pool_timeout=0)
        _prepare_sqlite(engine, foreign_keys=True)
        return engine
    engine = create_engine(
        url,
        isolation_level="AUTOCOMMIT",
        paramstyle="numeric_dollar",  # libpq, which glances ask, knows no names
        pool_timeout=0,
        connect_args={"connect_timeout": CONNECT_TIMEOUT_S},
    )
    _be_patient(engine, SILENCE_S)
    return engine


def _be_patient(engine: Engine, patience_s: float) -> None:
    from captioning.patience import PatientConnection  # who is on SQLite has no driver for it

    @event.listens_for(engine, "do_connect")
    def _connect(
        dialect: object, record: object, arguments: list[Any], options: dict[str, Any]
    ) -> PatientConnection:
        connection = PatientConnection.connect(*arguments, **options)
        connection.patience_s, connection.ping_patience_s = patience_s, SILENCE_S
        return connection


class NarrowedSession(Session):
    """Adds options to every statement that reads, updates or deletes through the mapped
    classes, so that no query can forget them."""


@event.listens_for(NarrowedSession, "do_orm_execute")
def _narrow(state: ORMExecuteState) -> None:
    # Loads of relationships and columns take the options over from what loaded their parent.
    if not (state.is_insert or state.is_column_load or state.is_relationship_load):
        state.statement = state.statement.options(*state.session.info["options"])


class Database:
    """Reading and writing transactions on one engine. Safe to share between threads."""

    def __init__(self, url: str) -> None:
        self.engine = make_engine(url)
        self._writer = self.engine.execution_options(writing=True)
        self._reader = self.engine
        self._glancer = self.engine.execution_options(glancing=True)
        if self.engine.dialect.name == "postgresql":
            self._glancer = self.engine.execution_options(isolation_level="AUTOCOMMIT")
            # Its default shows each statement of a transaction another state of the tables.
            self._reader = self.engine.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
        self._glances = Glances(_make_glancing_engine(url))
        self._new_session: Callable[[Engine], Session] = partial(Session, expire_on_commit=False)

    def narrowed(self, options: Sequence[ORMOption]) -> Database:
        """The same database, but every statement gets these options."""
        narrowed = copy(self)
        narrowed._new_session = partial(
            NarrowedSession, expire_on_commit=False, info={"options": tuple(options)}
        )
        return narrowed

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: committed at the end of the block, rolled back if it raises.

        Raises: DatabaseUnavailable when the database cannot be reached or stays locked.
        """
        with (
            _unavailable_as_ours(),
            self._new_session(self._writer) as session,
            session.begin(),
        ):
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """One consistent snapshot, never written to. Does not wait for writers.

        Raises: DatabaseUnavailable.
        """
        with _unavailable_as_ours(), self._new_session(self._reader) as session:
            yield session

    def glance(self, statement: Select[Any], values: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """The rows of one statement, with neither a session nor a transaction around it, each of
        which costs more than the statement. Not narrowed: it must say itself who may see what.

        Raises: DatabaseUnavailable.
        """
        with _unavailable_as_ours():
            try:
                return self._glances.rows(statement, values)
            except Unanswered:
                with self._glancer.connect() as connection:
                    return connection.execute(statement, values).all()

    @contextmanager
    def alter(self) -> Iterator[Connection]:
        """One transaction that may alter tables. SQLite does that by dropping the old table,
        and with foreign keys on a drop deletes every row that refers to it: here they are off.

        Raises: DatabaseUnavailable.
        """
        engine = make_engine(
            self.engine.url, foreign_keys=False, statement_timeout_s=ALTER_TIMEOUT_S
        )
        try:
            writer = engine.execution_options(writing=True)
            with _unavailable_as_ours(), writer.begin() as connection:
                yield connection
        finally:
            engine.dispose()

    def close(self) -> None:
        self.engine.dispose()
        self._glances.close()


@contextmanager
def _unavailable_as_ours() -> Iterator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise DatabaseUnavailable("Every connection to the database is in use.") from error
    except DBAPIError as error:
        # Its very class, no subclass, is how SQLite calls a file that is damaged or no database.
        damaged = type(error) is DatabaseError
        read_only = getattr(error.orig, "sqlstate", None) in NO_WRITES
        away = isinstance(error, OperationalError) or error.connection_invalidated
        if away or damaged or read_only:
            # Drivers add hints and details on further lines.
            raise DatabaseUnavailable(str(error.orig).partition("\n")[0]) from error
        raise
