"""An image from an address that a stranger chose: by captioning/outgoing.py, which keeps to
public addresses, each redirect looked at again. What comes back is only bytes: intake decides
what they are.
"""

from __future__ import annotations

import time
from urllib.parse import unquote

import httpx

from captioning import outgoing
from captioning.errors import ImageTooLarge, ImageUnfetchable, ImageUrlRefused
from captioning.queue import Upload
from captioning.settings import Settings

TIMEOUT_S = 15.0
MAX_REDIRECTS = 4
REDIRECTS = (301, 302, 303, 307, 308)
HEADERS = {"User-Agent": "captioning", "Accept": "image/*", "Accept-Encoding": "identity"}


def fetch_allowed(url: str, settings: Settings) -> Upload:
    """Raises: ImageUrlRefused, ImageUnfetchable, ImageTooLarge."""
    if not settings.fetch_image_urls:
        raise ImageUrlRefused("This service fetches no images by their addresses.")
    return fetch(url, max_bytes=settings.max_image_bytes)


def fetch(url: str, *, max_bytes: int, timeout_s: float = TIMEOUT_S) -> Upload:
    """Raises: ImageUrlRefused, ImageUnfetchable, ImageTooLarge."""
    deadline = time.monotonic() + timeout_s
    try:
        target = outgoing.checked(url)
        for _ in range(MAX_REDIRECTS + 1):
            redirect, data = _get(target, max_bytes, deadline)
            if redirect is None:
                return Upload(unquote(target.path).rsplit("/", 1)[-1] or target.host, data)
            target = outgoing.checked(redirect, target)
    except (outgoing.NotPublic, outgoing.NoSuchHost) as error:
        # Which of the two would tell strangers what names there are in our network.
        raise ImageUrlRefused(f"{target.host} leads to no public address.") from error
    except outgoing.Refused as error:
        raise ImageUrlRefused(str(error)) from error
    except outgoing.Unreachable as error:
        raise ImageUnfetchable(str(error)) from error
    raise ImageUnfetchable(f"The address redirects more than {MAX_REDIRECTS} times.")


def _get(url: httpx.URL, max_bytes: int, deadline: float) -> tuple[str | None, bytes]:
    """Where the answer redirects to, or what it holds."""
    with outgoing.exchange("GET", url, HEADERS, deadline=deadline) as response:
        answered = httpx.Headers(response.headers)
        if response.status in REDIRECTS and "Location" in answered:
            return answered["Location"], b""
        if response.status != 200:
            raise ImageUnfetchable(f"{url.host} answered {response.status}.")
        if answered.get("Content-Encoding", "identity") != "identity":
            raise ImageUnfetchable(f"{url.host} answered in an encoding that was not asked for.")
        data = bytearray()
        for chunk in response.iter_stream():
            data += chunk
            if len(data) > max_bytes:
                raise ImageTooLarge(f"The file is larger than {max_bytes / 1e6:.0f} MB.")
    return None, bytes(data)
