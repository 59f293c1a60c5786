"""A stand-in for the Hugging Face hub on loopback: the endpoints that huggingface_hub uses to
read, and ways to break them off."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "c" * 40
FILE = re.compile(r"/(?P<repo>[^?]+)/resolve/[^/]+/(?P<file>[^?]+)")
TREE = re.compile(r"/api/models/(?P<repo>.+)/tree/[^/?]+")
INFO = re.compile(r"/api/models/(?P<repo>.+?)(/revision/[^/?]+)?(\?.*)?")


class Hub:
    """`repositories` maps a name to a folder. `cut_after` breaks the next download of a large
    file off there, and those after it fail at once until it is None again."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.repositories: dict[str, Path] = {}
        self.ranges: list[str] = []
        self.cut_after: int | None = None
        self.has_cut = False
        self.spoil = False


@contextmanager
def run_hub() -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.hub = hub = Hub(f"http://127.0.0.1:{server.server_port}")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    @property
    def hub(self) -> Hub:
        return self.server.hub  # type: ignore[attr-defined, no-any-return]

    def _answer(self) -> None:
        if match := FILE.fullmatch(self.path.partition("?")[0]):
            self._file(match["repo"], match["file"])
        elif match := TREE.match(self.path):
            self._tree(match["repo"])
        elif match := INFO.fullmatch(self.path):
            self._info(match["repo"])
        else:
            self._refuse("EntryNotFound")

    def _file(self, repo: str, name: str) -> None:
        if repo not in self.hub.repositories:
            return self._refuse("RepoNotFound")
        path = self.hub.repositories[repo] / name
        if not path.is_file():
            return self._refuse("EntryNotFound")
        content = path.read_bytes()
        start = 0
        if self.command == "GET" and (wanted := self.headers.get("Range")):
            self.hub.ranges.append(wanted)
            start = int(wanted.removeprefix("bytes=").split("-")[0])
        cut = self.hub.cut_after if name.endswith(".pt") else None
        if self.command == "GET" and cut is not None and self.hub.has_cut:
            self.send_response(503)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if self.command == "HEAD":
            return None
        if self.hub.spoil:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if cut is not None:
            self.hub.has_cut = True
            self.close_connection = True
            content = content[: start + cut]
        self.wfile.write(content[start:])
        return None

    def _info(self, repo: str) -> None:
        if repo not in self.hub.repositories:
            return self._refuse("RepoNotFound")
        names = [{"rfilename": file["path"]} for file in self._files(repo)]
        return self._json({"id": repo, "sha": COMMIT, "siblings": names, "tags": []})

    def _tree(self, repo: str) -> None:
        self._json(self._files(repo))

    def _files(self, repo: str) -> list[dict[str, Any]]:
        folder = self.hub.repositories[repo]
        return [
            {
                "type": "file",
                "path": path.relative_to(folder).as_posix(),
                "size": path.stat().st_size,
                "oid": "0" * 40,
            }
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        ]

    def _json(self, data: object) -> None:
        content = json.dumps(data).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, code: str) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()
