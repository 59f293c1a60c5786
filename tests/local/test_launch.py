"""What stands in the way is said before anything is started."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from captioning import workers
from captioning.database import Database
from captioning.local import launch
from captioning.local.errors import StartError
from captioning.local.folder import DataFolder
from captioning.local.record import Record
from captioning.migrate import migrate
from captioning.models import Worker, new_id
from captioning.settings import Settings
from tests.local.conftest import SLEEPER


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data", port=free_port())


@pytest.fixture
def said() -> list[str]:
    return []


def refuse(settings: Settings, said: list[str]) -> str:
    with pytest.raises(StartError) as caught:
        launch.run(settings, said.append)
    assert not any(line.startswith("Starting") for line in said)
    assert not list((settings.data_dir / "logs").glob("*"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_port_in_use_is_said(settings: Settings, said: list[str]) -> None:
    with socket.create_server((settings.host, settings.port)):
        assert refuse(settings, said).startswith(f"Port {settings.port} on 127.0.0.1 is in use.")


def test_a_damaged_database_is_said(settings: Settings, said: list[str]) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "captioning.db").write_bytes(b"no database" * 500)
    assert refuse(settings, said) == (
        f"The database {settings.database_url} cannot be used: file is not a database"
    )


def test_a_folder_in_place_of_the_database_is_said(settings: Settings, said: list[str]) -> None:
    (settings.data_dir / "captioning.db").mkdir(parents=True)
    assert refuse(settings, said).endswith("cannot be used: unable to open database file")


def test_a_database_of_the_future_is_said(settings: Settings, said: list[str]) -> None:
    settings.data_dir.mkdir()
    with sqlite3.connect(settings.data_dir / "captioning.db") as connection:
        connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.execute("INSERT INTO alembic_version VALUES ('from_the_future')")
    connection.close()
    assert "from_the_future" in refuse(settings, said)


def test_a_database_that_is_away_is_said_without_its_password(
    settings: Settings, said: list[str], tmp_path: Path
) -> None:
    url = f"postgresql+psycopg://me:secret@/captioning?host={tmp_path}"
    line = refuse(settings.model_copy(update={"database_url": url}), said)
    assert line.startswith("The database postgresql+psycopg://me:***@/captioning")
    assert "secret" not in line


def test_what_a_killed_run_left_behind_is_stopped_first(
    settings: Settings, said: list[str]
) -> None:
    folder = DataFolder(settings.data_dir)
    with (
        subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE) as left,
        socket.create_server((settings.host, settings.port)),  # and then it gets no further
    ):
        with folder.owned():
            Record(folder.children).add("worker", left.pid)
        refuse(settings, said)
        assert said == [f"Stopping a worker (process {left.pid}) that the last run left behind …"]
        assert left.poll() is not None


def test_a_worker_that_could_not_sign_off_does_not_pass_for_ready(settings: Settings) -> None:
    settings.data_dir.mkdir()
    database = Database(settings.database_url)
    migrate(database)
    host = socket.gethostname()
    with database.write() as session:
        for name in (f"1@{host}", "2@elsewhere"):
            workers.register(session, new_id(), name=name, models=["bundled"])
    launch._prepare_database(settings)
    with database.read() as session:
        assert [row.name for row in session.query(Worker)] == ["2@elsewhere"]
    database.close()
