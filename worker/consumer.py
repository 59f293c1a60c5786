"""What hears the rings: celery's consumer, which a broken connection must not end."""

from __future__ import annotations

import logging

from celery.worker import consumer

logger = logging.getLogger(__name__)


class Consumer(consumer.Consumer):  # type: ignore[misc]  # celery publishes no types
    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Let the broken connection go; celery makes another one then.

        Celery expects no other error of that than one of connections. But kombu 5.7 may come to a
        channel that has rings to give back and no connection any more: an AttributeError, upon
        which celery ends the worker. The rings come again, and the sweep needs none.
        """
        try:
            super().on_connection_error_after_connected(exc)
        except Exception as error:
            logger.warning("the broken connection to the broker was not closed: %r", error)
