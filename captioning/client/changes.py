"""What can be done with a job or a batch once it is there. What was carried out though its answer
was lost is not an error when it is asked for again."""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal
from urllib.parse import quote

from captioning.client.answers import Batch, Job
from captioning.client.exchange import Send, Steps, exchange
from captioning.client.steps import API, job_path, read_job
from captioning.errors import NotFound, WrongState

Kind = Literal["csv", "jsonl", "zip"]
"""Of a file that a batch is taken home as."""


class Unchanged(Enum):
    """Of what an edit leaves as it is; None would take it back."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED


def edit(
    job_id: str, caption: str | Unchanged | None, decorative: bool | None, retries: int
) -> Steps[Job]:
    said: dict[str, Any] = {} if caption is UNCHANGED else {"caption": caption}
    if decorative is not None:
        said["decorative"] = decorative
    change = Send("PATCH", job_path(job_id), {"json": said})
    response = yield from exchange(change, retries)
    return Job.model_validate_json(response.content)


def change_job(job_id: str, verb: Literal["cancel", "retry"], retries: int) -> Steps[Job]:
    ask = Send("POST", f"{job_path(job_id)}/{verb}")
    response = yield from exchange(ask, retries, settled=WrongState)
    if response.is_error:  # it is as wished already
        return (yield from read_job(job_id, retries))
    return Job.model_validate_json(response.content)


def read_batch(batch_id: str, retries: int) -> Steps[Batch]:
    response = yield from exchange(Send("GET", batch_path(batch_id)), retries)
    return Batch.model_validate_json(response.content)


def change_batch(batch_id: str, verb: Literal["cancel", "retry"], retries: int) -> Steps[Batch]:
    response = yield from exchange(Send("POST", f"{batch_path(batch_id)}/{verb}"), retries)
    return Batch.model_validate_json(response.content)


def delete(path: str, retries: int) -> Steps[None]:
    yield from exchange(Send("DELETE", path), retries, settled=NotFound)


def export(batch_id: str, kind: Kind, retries: int) -> Steps[bytes]:
    ask = Send("GET", f"{batch_path(batch_id)}/export.{kind}")
    return (yield from exchange(ask, retries)).content


def batch_path(batch_id: str) -> str:
    return f"{API}/batches/{quote(batch_id, safe='')}"
