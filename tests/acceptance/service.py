"""`captioning run` as a process, as a newcomer starts it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import select

from captioning.database import Database
from captioning.models import Job, JobStatus

COMMAND = Path(sys.executable).with_name("captioning")
WAIT_S = 240
"""Loading torch takes a while on a busy machine."""


class Service:
    """One data folder and the processes on it; may be started and stopped again and again."""

    def __init__(self, folder: Path, models: str, **settings: Any) -> None:
        self.data = folder / "data"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **{name: value for name, value in os.environ.items() if "CAPTIONING_" not in name},
            "CAPTIONING_DATA_DIR": str(self.data),
            "CAPTIONING_PORT": str(self.port),
            "CAPTIONING_MODELS": models,
            **{f"CAPTIONING_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.http = httpx.Client(base_url=self.url, timeout=WAIT_S)
        self.database = Database(f"sqlite:///{self.data}/captioning.db")
        self._terminal = folder / "terminal"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> psutil.Process:
        assert self._process is not None
        return psutil.Process(self._process.pid)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def said(self) -> str:
        """What the terminal shows since the last start."""
        return self._terminal.read_text()

    def start(self) -> None:
        with self._terminal.open("wb") as terminal:
            self._process = subprocess.Popen(
                [COMMAND, "run"],
                env=self.environment,
                stdout=terminal,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait_until(lambda: f"Ready: {self.url} " in self.said)

    def stop(self, number: int = signal.SIGINT) -> int:
        """As the terminal does on Ctrl-C: the whole process group gets the signal."""
        assert self._process is not None
        os.killpg(self._process.pid, number)
        return self._process.wait(WAIT_S)

    def kill(self) -> None:
        """SIGKILL to the supervisor alone."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        self.http.close()
        self.database.close()
        children = self.children()
        if self.is_running:
            self.stop(signal.SIGTERM)
        for child in children.values():  # of a supervisor that was killed
            with suppress(psutil.NoSuchProcess):
                for process in (*child.children(recursive=True), child):
                    process.kill()

    def children(self) -> dict[str, psutil.Process]:
        """The running children by name, from the supervisor's record."""
        found = {}
        with suppress(FileNotFoundError):
            for name, entry in json.loads((self.data / "children.json").read_text()).items():
                with suppress(psutil.NoSuchProcess):
                    found[name] = psutil.Process(entry["pid"])
        return found

    def wait_until(self, condition: Callable[[], Any]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert self.is_running, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.1)

    def upload(self, photos: dict[str, bytes], **form: str) -> list[str]:
        """Upload a batch over HTTP; returns the ids of its jobs."""
        files = [("images", (name, data)) for name, data in photos.items()]
        answer = self.http.post("/api/v1/batches", files=files, data=form)
        assert answer.status_code == 202, answer.text
        return [job["id"] for job in answer.json()["jobs"]]

    def jobs(self, job_ids: Collection[str] | None = None) -> list[Job]:
        with self.database.read() as session:
            jobs = session.scalars(select(Job).order_by(Job.id)).all()
        return [job for job in jobs if job_ids is None or job.id in job_ids]

    def wait_for(self, job_ids: Collection[str]) -> list[Job]:
        """These jobs, once they have finished."""
        self.wait_until(lambda: all(JobStatus(job.status).finished for job in self.jobs(job_ids)))
        return self.jobs(job_ids)

    def run_command(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port
