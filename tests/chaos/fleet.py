"""Everything that a service in production has, each as real processes that can be killed: its own
PostgreSQL and Valkey, web servers, workers. What has died is started again, as Docker would."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import select

from captioning.errors import DatabaseUnavailable
from captioning.migrate import migrate
from captioning.models import Job, JobStatus, Worker
from captioning.queue import Queue
from captioning.settings import Settings
from tests.acceptance.service import free_port
from tests.chaos.nursery import Nursery
from tests.chaos.processes import WAIT_S, environment, sweep_when_all_is_due
from tests.servers import PostgreSQL, Valkey, end_with_the_tests

LEASE_S, HEARTBEAT_S, SWEEP_S = 6.0, 1.0, 1.0
ENCODE_S = 0.25
"""So that a worker that is killed has something in hand."""
DATABASE, BROKER = "database", "broker"


class Fleet:
    """Must be made and mistreated in the main thread, for its processes end with that."""

    def __init__(
        self, folder: Path, bundle: Path, nursery: Nursery, workers: int = 3, webs: int = 2
    ) -> None:
        self._stack = ExitStack()
        self._servers: dict[str, PostgreSQL | Valkey] = {DATABASE: PostgreSQL(), BROKER: Valkey()}
        for server in self._servers.values():
            self._stack.callback(server.close)
        self.settings = self._settings(folder, bundle)
        self.queue = Queue(self.settings)
        self._stack.callback(self.queue.close)
        migrate(self.queue.database)
        self._nursery = nursery
        self._ports = {f"web {number}": free_port() for number in range(1, webs + 1)}
        self._webs: dict[str, subprocess.Popen[bytes]] = {}
        self._stack.callback(lambda: [self._kill_web(name) for name in self._webs])
        self._workers: dict[str, psutil.Process] = {}
        self._stack.callback(lambda: [self._kill_worker(name) for name in self._workers])
        self._started_at: dict[int, float] = {}
        self.start_s = 0.0
        """The longest that a worker has taken to start: how slow this machine is."""
        self.ended_by_themselves: list[str] = []
        self.names = [f"worker {number}" for number in range(1, workers + 1)]
        self.names += [*self._ports, *self._servers]
        self.start(self.names[:-2])

    def _settings(self, folder: Path, bundle: Path) -> Settings:
        database, broker = self._servers.values()
        assert isinstance(database, PostgreSQL)
        assert isinstance(broker, Valkey)
        database.create("captioning")
        return Settings(
            data_dir=folder,
            database_url=database.url("captioning"),
            broker_url=broker.url,
            storage_url=(folder / "storage").as_uri(),
            models={"tiny": str(bundle)},
            batch_size=4,
            lease_s=LEASE_S,
            heartbeat_s=HEARTBEAT_S,
            sweep_s=SWEEP_S,
            max_attempts=1000,  # however often a job is hit, it is to be captioned
        )

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self._ports.values()]

    def start(self, names: Iterable[str]) -> None:
        for name in names:
            log = self.settings.data_dir / f"{name}.log"
            if name in self._servers:
                self._servers[name].start()
            elif name in self._ports:
                with log.open("ab") as said:
                    self._webs[name] = subprocess.Popen(
                        [sys.executable, "-m", "web"],
                        env=environment(self.settings, port=self._ports[name]),
                        stdout=said,
                        stderr=said,
                        preexec_fn=end_with_the_tests,
                    )
            else:
                self._workers[name] = self._nursery.start(
                    environment(self.settings), log, encode_s=ENCODE_S
                )
                self._started_at[self._workers[name].pid] = time.monotonic()

    def kill(self, names: Iterable[str]) -> None:
        """By SIGKILL, all at once; PostgreSQL breaks off its connections and shuts down."""
        for name in names:
            if name in self._servers:
                self._servers[name].stop()
            elif name in self._ports:
                self._kill_web(name)
            else:
                self._kill_worker(name)

    def _kill_worker(self, name: str) -> None:
        with suppress(psutil.NoSuchProcess):  # it ended by itself
            self._workers[name].kill()
            self._workers[name].wait(WAIT_S)

    def _kill_web(self, name: str) -> None:
        process = self._webs[name]
        if process.poll() is None:
            children = psutil.Process(process.pid).children()
            process.kill()
            for child in children:
                child.kill()
            psutil.wait_procs(children, timeout=WAIT_S)
        process.wait(WAIT_S)

    def tend(self) -> None:
        """Start again what has ended by itself: a worker whose database is away does."""
        dead = [name for name, worker in self._workers.items() if not worker.is_running()]
        dead += [name for name, server in self._webs.items() if server.poll() is not None]
        self.ended_by_themselves += dead
        self.start(dead)

    def wait_until(self, condition: Callable[[], Any]) -> None:
        """Tends meanwhile. What is asked of the database may be asked while it starts."""
        deadline = time.monotonic() + WAIT_S * 5
        while True:
            try:
                if condition():
                    return
            except DatabaseUnavailable:
                pass
            assert time.monotonic() < deadline, self.logs()
            self.tend()
            time.sleep(0.1)

    def whole(self) -> bool:
        """Whether every worker has its model loaded, and is in the register."""
        with self.queue.database.read() as session:
            known = {int(name.partition("@")[0]) for name in session.scalars(select(Worker.name))}
        for pid in known & self._started_at.keys():
            took_s = time.monotonic() - self._started_at.pop(pid)
            self.start_s = max(self.start_s, took_s)
        return all(worker.pid in known for worker in self._workers.values())

    def held(self) -> set[tuple[str, str | None]]:
        """The jobs that run, each with its lease."""
        with self.queue.database.read() as session:
            running = select(Job.id, Job.lease_token).where(Job.status == JobStatus.RUNNING)
            return {(job_id, token) for job_id, token in session.execute(running)}

    def settle(self) -> None:
        """Stop the workers in good order, remove what dead uploads have left as if its time had
        come, and go on."""
        for worker in self._workers.values():
            with suppress(psutil.NoSuchProcess):
                worker.terminate()
        _, alive = psutil.wait_procs([*self._workers.values()], timeout=WAIT_S)
        assert not alive, self.logs()
        sweep_when_all_is_due(self.queue)
        self.start([*self._workers])

    def logs(self) -> str:
        logs = sorted(self.settings.data_dir.glob("*.log"))
        return "\n".join(f"--- {log.stem}\n{log.read_text()[-3000:]}" for log in logs)

    def close(self) -> None:
        self._stack.close()
