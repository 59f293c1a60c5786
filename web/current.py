"""What the running application holds."""

from __future__ import annotations

from flask import current_app

from captioning.queue import Queue


def queue() -> Queue:
    found: Queue = current_app.extensions["captioning"]
    return found
