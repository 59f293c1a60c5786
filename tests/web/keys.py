"""Holders of access keys, as programs and as browsers."""

from __future__ import annotations

from flask.testing import FlaskClient

from captioning import access
from captioning.models import Role
from captioning.queue import Queue


def make_key(queue: Queue, name: str, role: Role = Role.USER) -> str:
    with queue.database.write() as session:
        return access.create_key(session, name, role)


def revoke(queue: Queue, name: str) -> None:
    with queue.database.write() as session:
        access.revoke_key(session, name)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def sign_in(client: FlaskClient, secret: str) -> FlaskClient:
    answer = client.post("/sign-in", data={"key": secret})
    assert answer.status_code == 303
    return client
