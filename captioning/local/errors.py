"""Why the service cannot be started here, in one line."""

from __future__ import annotations

from captioning.errors import CaptioningError


class StartError(CaptioningError):
    """The service cannot be started."""

    code = "start"
