"""`python -m web`: serves the application with gunicorn, one process with many threads, until
SIGTERM or SIGINT. Requests in hand are finished first."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Any

from gunicorn import glogging
from gunicorn.app.base import BaseApplication

from captioning import logs, metrics
from captioning.access import require_keys_beyond_loopback
from captioning.errors import SettingsError
from captioning.settings import Settings, load_settings
from web import create_app

GRACEFUL_TIMEOUT_S = 10
BACKLOG = 512


class Log(glogging.Logger):  # type: ignore[misc]  # likewise
    """gunicorn's own lines, in the form of all others."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True


class Server(BaseApplication):  # type: ignore[misc]  # gunicorn publishes no types
    """gunicorn around our application, without its command line and configuration files."""

    def __init__(self, settings: Settings, listening_fd: int) -> None:
        self._settings = settings
        self._listening_fd = listening_fd
        super().__init__()

    def load_config(self) -> None:
        memory = Path("/dev/shm")  # noqa: S108  # a heartbeat file on a busy disk can block
        options: dict[str, Any] = {
            "bind": f"fd://{self._listening_fd}",
            "workers": 1,
            "worker_class": "gthread",
            "threads": self._settings.web_threads,
            "forwarded_allow_ips": "",  # web/proxies.py says which are believed
            "graceful_timeout": GRACEFUL_TIMEOUT_S,
            "worker_tmp_dir": str(memory) if os.access(memory, os.W_OK) else None,
            "control_socket_disable": True,  # it would write to the home folder
            "loglevel": "warning",
            "logger_class": Log,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        app = create_app(self._settings)  # in the worker process, after the fork
        if self._settings.web_metrics_port:
            registry = app.extensions["captioning.metrics"].registry
            metrics.serve(registry, self._settings.host, self._settings.web_metrics_port)
        return app


def main() -> int:
    try:
        settings = load_settings()
        require_keys_beyond_loopback(settings)
        logs.configure(settings.log_format)
        listener = _listen(settings.host, settings.port)
        if settings.web_metrics_port:  # in use? Said here; the process that serves it only exits
            _listen(settings.host, settings.web_metrics_port).close()
    except (SettingsError, OSError) as error:
        print(f"web: {error}", file=sys.stderr)
        return 1
    Server(settings, listener.detach()).run()  # closes it, and exits
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """Bound here and not by gunicorn, which tries a port in use for five seconds.

    Raises: OSError that says which address and why.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (")[0]  # which repeats the address
        raise OSError(f"cannot listen on {host}:{port}: {reason}") from error


if __name__ == "__main__":
    sys.exit(main())
