"""Access keys, and who may see what: everything that somebody hands in belongs to their key.

A key is a random secret that is shown once; kept is its digest, which is no use to who reads
the table. (A plain SHA-256: 256 random bits leave nothing to guess, however fast.) Nothing here
knows of HTTP.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import ip_address
from socket import SOCK_STREAM, getaddrinfo
from typing import Any

from sqlalchemy import ColumnElement, Update, delete, false, or_, select, update
from sqlalchemy.orm import Session, with_loader_criteria
from sqlalchemy.orm.util import LoaderCriteriaOption

from captioning.database import Database, db_now
from captioning.errors import InvalidOption, KeyNotFound, KeyRefused, SettingsError
from captioning.models import AccessKey, Base, Role, SignIn, looked_up_id, new_id
from captioning.settings import RATE, Settings

PREFIX = "cap_"
"""Tells people, and programs that look for secrets where none belong, what it is."""
SIGNED_IN_S = 30 * 24 * 3600
MAX_NAME = 100


@dataclass(frozen=True)
class Limits:
    """What a key may do at most; None is what the settings say."""

    rate: str | None = None
    images_per_day: int | None = None


@dataclass(frozen=True)
class Caller:
    """On whose behalf something is done. `owner` is the key's id; "" belongs to nobody, and
    None is somebody who has shown no key and sees nothing."""

    owner: str | None
    name: str = ""
    sees_all: bool = False
    limits: Limits = field(default_factory=Limits)

    def seen(self, database: Database) -> Database:
        """The database as far as this caller sees it."""
        return database if self.sees_all else database.narrowed(_own_rows(self.owner))


EVERYBODY = Caller("", sees_all=True)
"""Programs inside the cluster, and whoever comes while access is open."""
STRANGER = Caller(None)


@lru_cache(maxsize=1024)  # of whom they are is all that they depend on
def _own_rows(owner: str | None) -> Sequence[LoaderCriteriaOption]:
    """What a session is to add to every statement: a table with an owner shows own rows only."""
    tables = [mapper.class_ for mapper in Base.registry.mappers if "owner" in mapper.columns]
    return [
        with_loader_criteria(
            table, false() if owner is None else table.owner == owner, include_aliases=True
        )
        for table in tables
    ]


def create_key(session: Session, name: str, role: Role, limits: Limits | None = None) -> str:
    """Make a key and return its secret, which is told never again.

    Raises: InvalidOption.
    """
    if not (name.isprintable() and name.strip() == name and 0 < len(name) <= MAX_NAME):
        raise InvalidOption(f"A key's name has 1 to {MAX_NAME} printable characters.")
    if session.scalar(select(AccessKey.id).where(AccessKey.name == name, _in_force())):
        raise InvalidOption(f"There is a key {name!r} already.")
    limits = limits or Limits()
    _check(limits)
    secret = PREFIX + secrets.token_urlsafe(32)
    key = AccessKey(id=new_id(), name=name, role=role, digest=_digest(secret), **vars(limits))
    session.add(key)
    session.flush()
    return secret


def list_keys(session: Session) -> Sequence[AccessKey]:
    """All keys, revoked ones too, oldest first."""
    return session.scalars(select(AccessKey).order_by(AccessKey.id)).all()


def limit_key(session: Session, name_or_id: str, changes: Mapping[str, Any]) -> AccessKey:
    """Change those of a key's Limits that are named, from the next request on.

    Raises: KeyNotFound, InvalidOption.
    """
    if not changes:
        raise InvalidOption("Say what the limits are to be.")
    _check(Limits(**changes))
    limiting = update(AccessKey).where(_named(name_or_id), _in_force()).values(**changes)
    return _changed(session, limiting, name_or_id)


def revoke_key(session: Session, name_or_id: str) -> AccessKey:
    """End a key, and every session that was opened with it. What it owns stays.

    Raises: KeyNotFound.
    """
    revoking = update(AccessKey).where(_named(name_or_id), _in_force()).values(revoked_at=db_now())
    key = _changed(session, revoking, name_or_id)
    session.execute(delete(SignIn).where(SignIn.key_id == key.id))
    return key


def caller_of_key(session: Session, secret: str) -> Caller:
    """Raises: KeyRefused."""
    key = session.scalar(select(AccessKey).where(AccessKey.digest == _digest(secret), _in_force()))
    return _caller(key)


def sign_in(session: Session, secret: str) -> str:
    """Open a session of a browser; returns its token, which is as good as the key for as long
    as it lasts.

    Raises: KeyRefused.
    """
    token = secrets.token_urlsafe(32)
    owner = caller_of_key(session, secret).owner
    session.add(SignIn(digest=_digest(token), key_id=owner, expires_at=db_now(SIGNED_IN_S)))
    session.flush()
    return token


def caller_of_sign_in(session: Session, token: str) -> Caller:
    """Raises: KeyRefused."""
    open_now = (SignIn.digest == _digest(token), SignIn.expires_at > db_now(), _in_force())
    return _caller(session.scalar(select(AccessKey).join(SignIn).where(*open_now)))


def sign_out(session: Session, token: str) -> None:
    session.execute(delete(SignIn).where(SignIn.digest == _digest(token)))


def forget_old(session: Session) -> None:
    """The sweeper's part: sessions past their time."""
    session.execute(delete(SignIn).where(SignIn.expires_at < db_now()))


def require_keys_beyond_loopback(settings: Settings) -> None:
    """Raises: SettingsError, where anybody who reaches this machine could use the service."""
    if settings.access == "open" and not _is_loopback(settings.host):
        raise SettingsError(
            f"CAPTIONING_HOST={settings.host} is reached from other machines, and without access "
            "keys they all would be let in. Set CAPTIONING_ACCESS=keys, and make the first key "
            "with `captioning keys create NAME`."
        )


def _is_loopback(host: str) -> bool:
    try:
        found = getaddrinfo(host, None, type=SOCK_STREAM)
    except OSError:
        return True  # nothing can listen there, and that is said where it is tried
    return all(ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def _named(name_or_id: str) -> ColumnElement[bool]:
    return or_(AccessKey.name == name_or_id, AccessKey.id == looked_up_id(name_or_id))


def _changed(session: Session, changing: Update, name_or_id: str) -> AccessKey:
    key = session.scalars(changing.returning(AccessKey)).one_or_none()
    if key is None:
        raise KeyNotFound(f"There is no key {name_or_id!r} in force.")
    return key


def _check(limits: Limits) -> None:
    """Raises: InvalidOption."""
    if limits.rate is not None and not re.fullmatch(RATE, limits.rate):
        raise InvalidOption("A rate is a number by second, minute, hour or day, as 600/minute.")
    images = limits.images_per_day
    if images is not None and not (isinstance(images, int) and 0 <= images < 2**31):
        raise InvalidOption("Images per day are a number from 0.")


def _in_force() -> ColumnElement[bool]:
    return AccessKey.revoked_at.is_(None)


def _caller(key: AccessKey | None) -> Caller:
    if key is None:
        raise KeyRefused("It is unknown, or has been revoked.")
    limits = Limits(key.rate, key.images_per_day)
    return Caller(key.id, key.name, sees_all=key.role == Role.ADMIN, limits=limits)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()
