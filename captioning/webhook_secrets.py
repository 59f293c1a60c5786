"""What an owner's messages are signed with. How is captioning/messages.py's business."""

from __future__ import annotations

import base64
import secrets
from contextlib import suppress

from sqlalchemy import ColumnElement, Select, and_, case, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from captioning.database import db_now
from captioning.messages import SECRET_PREFIX
from captioning.models import WebhookSecret

PREVIOUS_SIGNS_S = 24 * 3600


def secret_of(session: Session, owner: str) -> str:
    """What the owner's messages are signed with; made when it is first asked for."""
    return in_force(session, owner)[0]


def change_secret(session: Session, owner: str) -> str:
    """Sign with a new secret from now on, and with the one before, too, for a day, so that
    receivers can be changed one by one. Within that day the new one alone is replaced: a change
    whose answer was lost may be asked for again."""
    secret_of(session, owner)  # there is one
    after = _new_secret()
    signs = and_(WebhookSecret.previous.is_not(None), _recent())
    row = update(WebhookSecret).where(WebhookSecret.owner == owner)
    session.execute(
        row.values(
            secret=after,
            previous=case((signs, WebhookSecret.previous), else_=WebhookSecret.secret),
            changed_at=case((signs, WebhookSecret.changed_at), else_=db_now()),
        )
    )
    return after


def in_force(session: Session, owner: str) -> list[str]:
    """The secrets that the owner's messages are signed with now, the newest first."""
    found = session.execute(_secrets(owner)).first()
    if found is None:
        with suppress(IntegrityError), session.begin_nested():  # another is making it just now
            session.add(WebhookSecret(owner=owner, secret=_new_secret()))
        found = session.execute(_secrets(owner)).one()
    secret, previous, signs = found
    return [secret, previous] if previous and signs else [secret]


def _secrets(owner: str) -> Select[str, str | None, bool]:
    return select(WebhookSecret.secret, WebhookSecret.previous, _recent()).where(
        WebhookSecret.owner == owner
    )


def _recent() -> ColumnElement[bool]:
    return WebhookSecret.changed_at > db_now(-PREVIOUS_SIGNS_S)


def _new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
