"""Statements that are asked again and again, of the driver itself: what SQLAlchemy does around one,
and its ping of the connection before, take several times as long as the database does.
"""

from __future__ import annotations

import hashlib
import select
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol, cast

from sqlalchemy import Engine, PoolProxiedConnection, Select
from sqlalchemy.exc import TimeoutError as NoneFree

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from captioning.patience import PatientConnection

Row = tuple[Any, ...]
FLOAT8 = 701
"""PostgreSQL's number of its type of a float: SQLAlchemy asks, and there is no other here."""


class Unanswered(Exception):
    """The connection may be an old one that the database has closed since, or something else is
    wrong: who asks as SQLAlchemy does is told what."""


class Glances:
    """The rows of single statements, outside any transaction, on an engine without a ping whose
    parameters have places, not names. Safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Taken from the engine's pool and kept: to borrow one each time, with a new cursor, is as
        # much work as the rest. The last one used is the warmest.
        self._idle: list[_Asker] = []
        self._asker = _LibpqAsker if engine.dialect.name == "postgresql" else _CursorAsker
        self._prepared: dict[Select[Any], _Prepared] = {}

    def rows(self, statement: Select[Any], values: Mapping[str, Any]) -> list[Row]:
        """Of a statement that stands in a module: each is kept, compiled.

        Raises: Unanswered.
        """
        prepared = self._prepared.get(statement)
        if prepared is None:
            # Of several threads that compile it at once, one wins: a connection that had read it
            # for another would be given it again, under the same name, and refuse it.
            compiled = _Prepared(self._engine, statement)
            prepared = self._prepared.setdefault(statement, compiled)
        try:
            rows = self._fetch(prepared, values)
        except (self._engine.dialect.loaded_dbapi.Error, NoneFree) as error:
            raise Unanswered from error
        return [prepared.python(row) for row in rows]

    def _fetch(self, prepared: _Prepared, values: Mapping[str, Any]) -> Sequence[Row]:
        """Raises: Unanswered, the driver's own errors; NoneFree, where the pool has no connection
        left."""
        try:
            asker = self._idle.pop()
        except IndexError:
            asker = self._asker(self._engine.raw_connection())
        try:
            rows = asker.fetch(prepared, prepared.bind(values))
        except BaseException:
            asker.connection.invalidate()
            raise
        self._idle.append(asker)
        return rows

    def close(self) -> None:
        while self._idle:
            self._idle.pop().connection.close()
        self._engine.dispose()


class _Prepared:
    """A statement as the driver takes it, and what SQLAlchemy makes of what the driver gives."""

    def __init__(self, engine: Engine, statement: Select[Any]) -> None:
        compiled = statement.compile(dialect=engine.dialect)
        self.sql = str(compiled)
        self._fixed = compiled.params
        self._places: Sequence[str] = getattr(compiled, "positiontup", None) or ()
        types = [column.type.dialect_impl(engine.dialect) for column in statement.selected_columns]
        makers = [type_.result_processor(engine.dialect, FLOAT8) for type_ in types]
        self._makers = [(place, make) for place, make in enumerate(makers) if make]
        # Who asks again is mostly told what it was told before.
        self.python = lru_cache(maxsize=1024)(self._python)

    def bind(self, values: Mapping[str, Any]) -> Sequence[Any]:
        bound = {**self._fixed, **values}
        return [bound[name] for name in self._places]

    def _python(self, row: Row) -> Row:
        values = list(row)
        for place, make in self._makers:
            values[place] = make(values[place])
        return tuple(values)


class _Asker(Protocol):
    """A connection, and what asks one thing at a time on it."""

    connection: PoolProxiedConnection

    def fetch(self, prepared: _Prepared, values: Sequence[Any]) -> Sequence[Row]:
        """The rows as the driver gives them. Raises: Unanswered, the driver's own errors."""


class _CursorAsker:
    def __init__(self, connection: PoolProxiedConnection) -> None:
        self.connection = connection
        self._cursor = connection.cursor()

    def fetch(self, prepared: _Prepared, values: Sequence[Any]) -> Sequence[Row]:
        self._cursor.execute(prepared.sql, values)
        return self._cursor.fetchall()


class _LibpqAsker:
    """Asks PostgreSQL's own library, which psycopg hands on: a cursor of psycopg's finds out anew
    each time what stays the same, in twice the time."""

    def __init__(self, connection: PoolProxiedConnection) -> None:
        from psycopg import pq  # who is on SQLite has no driver for it
        from psycopg.adapt import PyFormat, Transformer

        self.connection = connection
        driver = cast("PatientConnection", connection.driver_connection)
        self._libpq = driver.pgconn
        self._silence_s = driver.ping_patience_s
        self._readable = select.poll()
        self._readable.register(self._libpq.socket, select.POLLIN)
        self._transformer = Transformer(driver)
        self._as_text, self._written = PyFormat.TEXT, pq.Format.TEXT
        self._well = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)
        self._planned: dict[_Prepared, _Planned] = {}

    def fetch(self, prepared: _Prepared, values: Sequence[Any]) -> Sequence[Row]:
        planned = self._planned.get(prepared)
        if planned is None:
            planned = self._planned[prepared] = _Planned(prepared.sql.encode())
            self._libpq.send_prepare(planned.name, planned.sql)
            self._answer()
        written = self._transformer.dump_sequence(values, [self._as_text] * len(values))
        self._libpq.send_query_prepared(planned.name, written)
        answer = self._answer()
        columns = range(answer.nfields)
        if not planned.loaders:
            planned.loaders = [
                self._transformer.get_loader(answer.ftype(column), self._written).load
                for column in columns
            ]
        value = answer.get_value
        return [
            planned.driver_row(tuple([value(row, column) for column in columns]))
            for row in range(answer.ntuples)
        ]

    def _answer(self) -> PGresult:
        """To what has been sent. Raises: Unanswered, psycopg's own errors."""
        if self._libpq.flush():  # it is so short that it has been sent at once
            raise Unanswered
        deadline, last = time.monotonic() + self._silence_s, None
        while True:
            while self._libpq.is_busy():
                left_s = deadline - time.monotonic()
                if left_s <= 0 or not self._readable.poll(1000 * left_s):
                    raise Unanswered
                self._libpq.consume_input()
            answer = self._libpq.get_result()
            if answer is None:
                break
            last = answer
        if last is None or last.status not in self._well:
            raise Unanswered
        return last


class _Planned:
    """A statement on a connection that has read it. As long as it stands there, its columns have
    the types that they had: where one has another now, PostgreSQL refuses it."""

    def __init__(self, sql: bytes) -> None:
        self.sql = sql
        # Nobody else's, should a proxy lend one connection of the server's to several of ours.
        self.name = b"glance_" + hashlib.sha256(sql).hexdigest()[:16].encode()
        self.loaders: Sequence[Callable[[bytes], Any]] = ()
        """psycopg's, of each column."""
        self.driver_row = lru_cache(maxsize=1024)(self._driver_row)  # as with `python` above

    def _driver_row(self, written: Row) -> Row:
        return tuple(
            None if value is None else load(value)
            for load, value in zip(self.loaders, written, strict=True)
        )
