"""How much has been asked for of late, counted in the broker for all web processes together.

Source: Cloudflare's sliding window counter, as the package `limits` has it: two numbers for each
who asks. Knows nothing of requests; web/rates.py does.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

import redis
from limits import RateLimitItem, parse
from limits.errors import ConfigurationError
from limits.storage import storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter
from redis.backoff import NoBackoff
from redis.retry import Retry

logger = logging.getLogger(__name__)

TIMEOUT_S = 0.5
AWAY_S = 5.0
"""A broker that did not answer is left alone for so long: it costs few requests their time."""
KEYS = "captioning:rates"


@dataclass(frozen=True)
class Standing:
    """How somebody stands with a limit, after what they have just asked for."""

    allowed: bool
    amount: int
    window_s: int
    left: int
    reset_s: int
    """Until there is more."""


class Counts:
    """Connects on first use. Safe to share between threads. While the broker is away nothing
    is counted and everything allowed: it is the jobs in SQL that the service is for."""

    def __init__(self, broker_url: str) -> None:
        self._away_until = 0.0
        self._away = False
        self._limiter = _limiter(broker_url)

    def take(self, rate: str, who: Iterable[str]) -> Standing | None:
        """Count one request of somebody's, unless it is one too many. None where it was not
        counted: the rate is `off`, or the broker is away."""
        if rate == "off" or self._limiter is None or time.monotonic() < self._away_until:
            return None
        item, names = parse(rate), tuple(who)
        try:
            allowed = self._limiter.hit(item, *names)
            standing = self._standing(item, names, allowed)
        except (redis.RedisError, OSError) as error:
            self._leave_alone(error)
            return None
        if self._away:
            self._away = False
            logger.info("requests are counted again")
        return standing

    def close(self) -> None:
        if self._limiter:
            self._limiter.storage.storage.close()  # type: ignore[attr-defined]

    def _standing(self, item: RateLimitItem, names: tuple[str, ...], allowed: bool) -> Standing:
        assert self._limiter  # noqa: S101  (asked just now)
        found = self._limiter.get_window_stats(item, *names)
        reset_s = max(math.ceil(found.reset_time - time.time()), 1)
        left = found.remaining if allowed else 0
        return Standing(allowed, item.amount, item.get_expiry(), left, reset_s)

    def _leave_alone(self, error: Exception) -> None:
        self._away_until = time.monotonic() + AWAY_S
        if not self._away:
            self._away = True
            logger.warning("requests are not counted, the broker cannot be reached: %s", error)


def _limiter(broker_url: str) -> SlidingWindowCounterRateLimiter | None:
    try:
        storage = storage_from_string(
            _storage_url(broker_url),
            key_prefix=KEYS,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            # Once, for a connection that the broker has closed.
            retry=Retry(NoBackoff(), 1),  # type: ignore[arg-type]  # it is passed on
        )
        return SlidingWindowCounterRateLimiter(storage)
    except (ConfigurationError, NotImplementedError, TypeError):
        logger.warning("requests are not counted: the broker is neither Redis nor Valkey")
        return None


def _storage_url(broker_url: str) -> str:
    """The same server as `limits` calls it."""
    scheme, place, path, query, _ = urlsplit(broker_url)
    if scheme != "redis+socket":
        return broker_url
    database = parse_qs(query).get("virtual_host", ["0"])[0]
    return f"redis+unix://{place}{path}?db={database}"
