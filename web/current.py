"""What the running application holds, and for whom."""

from __future__ import annotations

from flask import current_app, g

from captioning.access import Caller
from captioning.queue import Queue


def queue() -> Queue:
    """As the caller of this request sees it: no view can show what is somebody else's."""
    found: Queue = g.queue
    return found


def whole_queue() -> Queue:
    """As the service itself sees it. For what is said of no one's rows."""
    found: Queue = current_app.extensions["captioning"]
    return found


def caller() -> Caller:
    return queue().caller
