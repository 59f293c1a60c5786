"""The address of the web server: whether it is free to listen on, whether the service behind it
is ready."""

from __future__ import annotations

import errno
import http.client
import json
import socket

from captioning.local.errors import StartError

ANSWER_TIMEOUT_S = 5.0
ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (named, not listened on)


def require_free(host: str, port: int) -> None:
    """Raises: StartError when the web server could not listen there."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"Port {port} on {host} is in use. "
                "Stop what uses it, or choose another port by CAPTIONING_PORT."
            ) from error
        raise StartError(f"Cannot listen on {host} port {port}: {error.strerror}.") from error


def public_url(host: str, port: int) -> str:
    """Where a browser on this machine finds the service."""
    name = ANY.get(host, host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def missing(host: str, port: int) -> str | None:
    """What the service still waits for, in words; None when a photograph would be captioned."""
    connection = http.client.HTTPConnection(ANY.get(host, host), port, timeout=ANSWER_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        if response.status == http.client.OK:
            return None
        checks = json.load(response)["checks"]
        return "; ".join(f"{part}: {found}" for part, found in checks.items() if found != "ok")
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return "web: no answer yet"
    finally:
        connection.close()
