"""`Idempotency-Key`, and the token of a form: what is sent again is carried out once.

(draft-ietf-httpapi-idempotency-key-header)
"""

from __future__ import annotations

import hashlib
import secrets

from flask import request
from pydantic import BaseModel, ConfigDict, Field

from captioning.idempotency import Once

CHUNK_BYTES = 1 << 20
TOKEN = "once"  # noqa: S105  (a field's name)
"""The hidden field of a form that says which showing of the page it is sent from."""


class IdempotencyHeader(BaseModel):
    # By its name, too: APIFlask turns the dashes of headers into underscores.
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    idempotency_key: str | None = Field(
        None,
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]+$",
        description="Of your choice, such as a UUID; kept for 24 hours. The same request under "
        "the same key is carried out once, another one is refused.",
    )


def asked_once(header: IdempotencyHeader) -> Once | None:
    key = header.idempotency_key
    return Once(key, _fingerprint()) if key is not None else None


def new_token() -> str:
    return secrets.token_urlsafe(16)


def sent_once() -> Once | None:
    """Of a form with a token. All that is sent belongs to its key: who goes back to the page and
    chooses another photograph means another upload."""
    if not request.form.get(TOKEN):
        return None
    fingerprint = _fingerprint()
    return Once(f"form {fingerprint}", fingerprint)


def _fingerprint() -> str:
    """Of all that the sender decides. Not of the body's bytes: a multipart body has another
    boundary each time that it is sent."""
    digest = hashlib.sha256()

    def add(value: bytes) -> None:
        digest.update(len(value).to_bytes(8, "big") + value)

    add(request.path.encode())
    if request.is_json:
        add(request.get_data())
    for name, value in sorted(request.form.items(multi=True)):
        add(name.encode())
        add(value.encode())
    for name, part in request.files.items(multi=True):
        add(name.encode())
        add((part.filename or "").encode())
        while chunk := part.stream.read(CHUNK_BYTES):
            add(chunk)
        part.stream.seek(0)
    return digest.hexdigest()
