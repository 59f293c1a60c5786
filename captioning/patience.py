"""Connections to PostgreSQL that do not wait for ever. Its own timeouts help only while it
answers; a host that is frozen, or a network that swallows everything, says nothing at all."""

from __future__ import annotations

from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus

T = TypeVar("T")


class PatientConnection(psycopg.Connection[Any]):
    """Waits so long for each answer, and then closes itself: what came later would be taken
    for the answer to another question.

    Raises: psycopg.OperationalError.
    """

    patience_s = 60.0
    ping_patience_s = 5.0

    def wait(self, gen: PQGen[T], interval: float = 0.1, timeout: float | None = None) -> T:
        # What is no transaction is SQLAlchemy's ping, or a glance, which takes as little time.
        patience_s = self.ping_patience_s if self.autocommit else self.patience_s
        try:
            return super().wait(gen, interval, timeout or patience_s)
        except psycopg.OperationalError as error:
            if self.closed or self.info.transaction_status != TransactionStatus.ACTIVE:
                raise  # it has answered
            self.close()
            message = f"The database did not answer within {patience_s:.0f} s."
            raise psycopg.OperationalError(message) from error
