"""A connection to the broker that breaks does not end the worker."""

from __future__ import annotations

from unittest.mock import Mock

from captioning.broker import make_celery
from captioning.settings import Settings
from worker.app import make_app
from worker.consumer import Consumer


def test_a_connection_that_cannot_be_closed_is_let_go() -> None:
    """What kombu 5.7 says now and then, when a connection breaks with rings not acknowledged."""
    consumer = Consumer.__new__(Consumer)
    consumer.app = make_celery(Settings())
    consumer.connection = connection = Mock()
    connection.connection_errors = connection.channel_errors = (ConnectionError,)
    connection.close.side_effect = AttributeError("'NoneType' object has no attribute 'hostname'")
    consumer.on_connection_error_after_connected(ConnectionError("reset by peer"))
    connection.close.assert_called_once_with()
    assert consumer.connection is None


def test_a_worker_hears_with_it() -> None:
    assert make_app(Settings(), Mock()).conf.worker_consumer is Consumer
