"""A webhook's message: what it says, how it is signed and how it travels. Whom it is for, and
when, is captioning/webhooks.py.

Source: the Standard Webhooks specification (github.com/standard-webhooks), symmetric signatures.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any

from captioning import outgoing
from captioning.models import Batch, Job, JobStatus
from captioning.outgoing import Network

TIMEOUT_S = 10.0
SECRET_PREFIX = "whsec_"  # noqa: S105  (what every secret begins with)
HEADERS = {"User-Agent": "captioning", "Content-Type": "application/json", "Accept": "*/*"}


@dataclass(frozen=True)
class Message:
    """What is to be sent, once more, and signed with each of the secrets."""

    id: str
    attempt: int
    url: str
    body: bytes
    secrets: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """What came of one attempt."""

    status_code: int | None
    error: str | None
    seconds: float
    hopeless: bool = False
    """Whether there is no use in trying again."""

    @property
    def received(self) -> bool:
        return self.error is None


def send(message: Message, networks: Iterable[Network]) -> Answer:
    """Send it and wait for the answer, of which only the status is read. It does not raise:
    what goes wrong is the answer."""
    started = time.monotonic()
    code: int | None = None
    error: str | None = None
    hopeless = False
    try:
        with outgoing.exchange(
            "POST",
            outgoing.checked(message.url),
            HEADERS | signature(message, int(time.time())),
            content=message.body,
            deadline=started + TIMEOUT_S,
            networks=networks,
        ) as response:
            code = response.status
    # A name that leads to no public address may lead to one again.
    except (outgoing.Unreachable, outgoing.NotPublic) as failure:
        error = str(failure)
    except outgoing.Refused as refusal:
        error, hopeless = str(refusal), True
    if code is not None and not 200 <= code < 300:
        error = f"It answered {code}, which is not 2xx."
        hopeless = code == HTTPStatus.GONE  # by the specification: nobody wants to hear it
    return Answer(code, error, time.monotonic() - started, hopeless)


def signature(message: Message, timestamp: int) -> dict[str, str]:
    """The headers by which a receiver knows the sender."""
    signed = f"{message.id}.{timestamp}.".encode() + message.body
    signatures = []
    for secret in message.secrets:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
        signatures.append(hmac.digest(key, signed, hashlib.sha256))
    return {
        "webhook-id": message.id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{base64.b64encode(s).decode()}" for s in signatures),
    }


def of_job(job: Job) -> bytes:
    """That a job has ended, and how."""
    captions = [
        {
            "text": caption.text,
            "mean_log_probability": caption.mean_log_probability,
            "model_revision": caption.model_revision,
        }
        for caption in job.captions
    ]
    data = {
        "id": job.id,
        "status": job.status,
        "model": job.model,
        "filename": job.image.filename,
        "caption": job.text,
        "captions": captions,
        "error": job.error_code and {"code": job.error_code, "message": job.error_message or ""},
        "links": {"self": f"/api/v1/jobs/{job.id}"},
    }
    return _body(f"job.{job.status}", job.finished_at, data)


def of_batch(batch: Batch, counts: Mapping[JobStatus, int], ended_at: datetime) -> bytes:
    """That every job of a batch has ended. How each did is asked for: there may be many."""
    data = {
        "id": batch.id,
        "progress": {
            "total": sum(counts.values()),
            **{status.value: counts.get(status, 0) for status in JobStatus if status.finished},
        },
        "rejected": len(batch.rejected),
        "links": {"self": f"/api/v1/batches/{batch.id}"},
    }
    return _body("batch.finished", ended_at, data)


def _body(kind: str, at: datetime | None, data: Mapping[str, Any]) -> bytes:
    moment = at.isoformat(timespec="milliseconds") if at else None
    body = {"type": kind, "timestamp": moment, "data": data}
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
