"""Statements that are asked again and again, of the driver itself: what SQLAlchemy does around one,
and its ping of the connection before, take several times as long as the database does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Engine, PoolProxiedConnection, Select
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import TimeoutError as NoneFree

Row = tuple[Any, ...]
FLOAT8 = 701
"""PostgreSQL's number of its type of a float: SQLAlchemy asks, and there is no other here."""


class Unanswered(Exception):
    """The connection may be an old one that the database has closed since, or something else is
    wrong: who asks as SQLAlchemy does is told what."""


class Glances:
    """The rows of single statements, outside any transaction, on an engine without a ping. Safe to
    share between threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # Taken from the engine's pool and kept: to borrow one each time, with a new cursor, is as
        # much work as the rest. The last one used is the warmest.
        self._idle: list[tuple[DBAPICursor, PoolProxiedConnection]] = []
        self._prepared: dict[Select[Any], _Prepared] = {}

    def rows(self, statement: Select[Any], values: Mapping[str, Any]) -> list[Row]:
        """Of a statement that stands in a module: each is kept, compiled.

        Raises: Unanswered.
        """
        prepared = self._prepared.get(statement)
        if prepared is None:
            prepared = self._prepared[statement] = _Prepared(self._engine, statement)
        try:
            rows = self._fetch(prepared, values)
        except (self._engine.dialect.loaded_dbapi.Error, NoneFree) as error:
            raise Unanswered from error
        return [prepared.python(row) for row in rows]

    def _fetch(self, prepared: _Prepared, values: Mapping[str, Any]) -> Sequence[Row]:
        """Raises the driver's own errors; NoneFree, where the pool has no connection left."""
        try:
            cursor, connection = self._idle.pop()
        except IndexError:
            connection = self._engine.raw_connection()
            cursor = connection.cursor()
        try:
            cursor.execute(prepared.sql, prepared.bind(values))
            rows = cursor.fetchall()
        except BaseException:
            connection.invalidate()
            raise
        self._idle.append((cursor, connection))
        return rows

    def close(self) -> None:
        while self._idle:
            self._idle.pop()[1].close()
        self._engine.dispose()


class _Prepared:
    """A statement as the driver takes it, and how its columns become Python's values."""

    def __init__(self, engine: Engine, statement: Select[Any]) -> None:
        compiled = statement.compile(dialect=engine.dialect)
        self.sql = str(compiled)
        self._fixed = compiled.params
        self._places: Sequence[str] | None = getattr(compiled, "positiontup", None)
        types = [column.type.dialect_impl(engine.dialect) for column in statement.selected_columns]
        makers = [type_.result_processor(engine.dialect, FLOAT8) for type_ in types]
        # Who asks again is mostly told what it was told before.
        self.python = lru_cache(maxsize=1024)(self._python)
        self._makers: list[tuple[int, Callable[[Any], Any]]] = [
            (place, make) for place, make in enumerate(makers) if make
        ]

    def bind(self, values: Mapping[str, Any]) -> Mapping[str, Any] | Sequence[Any]:
        bound = {**self._fixed, **values}
        return bound if self._places is None else [bound[name] for name in self._places]

    def _python(self, row: Row) -> Row:
        values = list(row)
        for place, make in self._makers:
            values[place] = make(values[place])
        return tuple(values)
