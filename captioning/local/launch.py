"""Starts the service on this machine: what `captioning run` does."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Sequence

from captioning import workers
from captioning.access import require_keys_beyond_loopback
from captioning.database import Database
from captioning.errors import CaptioningError
from captioning.local.child import Child, ChildSpec
from captioning.local.errors import StartError
from captioning.local.folder import DataFolder
from captioning.local.listening import missing, public_url, require_free
from captioning.local.record import Record, end
from captioning.local.supervisor import Supervisor
from captioning.local.valkey import valkey_spec
from captioning.migrate import migrate
from captioning.settings import Settings, embedded_socket

Say = Callable[[str], None]
WEB_STOP_S = 15
"""It finishes the requests in hand."""
WORKER_STOP_S = 60
"""Time to finish the micro-batch in hand on a slow machine."""


def run(settings: Settings, say: Say) -> None:
    """Run the service until it is told to stop.

    1. Take the data folder, and stop what a killed supervisor left running in it.
    2. Check everything that can be checked, and bring the database to the newest schema.
    3. Start broker, worker and web, and keep them alive.

    Raises: CaptioningError with one clear line, before anything has been started or after
    everything has been stopped again.
    """
    require_keys_beyond_loopback(settings)
    started = time.monotonic()
    folder = DataFolder(settings.data_dir)
    with folder.owned():
        record = Record(folder.children)
        _stop_leftovers(record, say)
        require_free(settings.host, settings.port)
        specs = _specs(settings, folder)
        _prepare_database(settings)
        url = public_url(settings.host, settings.port)
        say(f"Starting in {folder.path} (models: {', '.join(settings.models)}) …")
        Supervisor(
            [Child(spec, folder, record) for spec in specs],
            missing=lambda: missing(settings.host, settings.port),
            on_ready=lambda: say(
                f"Ready: {url} (after {time.monotonic() - started:.0f} s; "
                f"Ctrl-C stops; logs: {folder.logs})"
            ),
            say=say,
        ).run()
        say("Stopped.")


def _specs(settings: Settings, folder: DataFolder) -> Sequence[ChildSpec]:
    # The children read the same environment; a relative folder is made absolute on the way.
    environment = {"CAPTIONING_DATA_DIR": str(folder.path), "PYTHONUNBUFFERED": "1"}
    ours = [
        ChildSpec("worker", module_command("worker"), environment, stop_s=WORKER_STOP_S),
        ChildSpec("web", module_command("web"), environment, stop_s=WEB_STOP_S),
    ]
    if not settings.embedded_broker:
        return ours
    return [valkey_spec(folder, embedded_socket(settings.data_dir)), *ours]


def module_command(module: str) -> list[str]:
    """-P: a folder named like the module in the current directory is not taken for it."""
    return [sys.executable, "-P", "-m", module]


def _stop_leftovers(record: Record, say: Say) -> None:
    for name, process in record.leftovers().items():
        say(f"Stopping a {name} (process {process.pid}) that the last run left behind …")
        end(process)


def _prepare_database(settings: Settings) -> None:
    database = Database(settings.database_url)
    try:
        migrate(database)
        with database.write() as session:
            # A killed worker could not sign off, and its row would pass for a ready worker.
            workers.forget_host(session, socket.gethostname())
    except CaptioningError as error:
        shown = database.engine.url.render_as_string(hide_password=True)
        raise StartError(f"The database {shown} cannot be used: {error}") from error
    finally:
        database.close()
