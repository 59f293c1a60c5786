"""What can be done with a job or a batch once it is there. What was carried out though its answer
was lost is not an error when it is asked for again."""

from __future__ import annotations

from enum import Enum
from typing import Any, Literal
from urllib.parse import quote

from captioning.client import errors
from captioning.client.answers import Batch, Job
from captioning.client.exchange import Send, Steps, exchange
from captioning.client.steps import API, job_path, read_job
from captioning.errors import ChangedSince, NotFound, WrongState

Kind = Literal["csv", "jsonl", "zip"]
"""Of a file that a batch is taken home as."""


class Unchanged(Enum):
    """Of what an edit leaves as it is; None would take it back."""

    UNCHANGED = "unchanged"


UNCHANGED = Unchanged.UNCHANGED


def edit(
    job: Job | str, caption: str | Unchanged | None, decorative: bool | None, retries: int
) -> Steps[Job]:
    said: dict[str, Any] = {} if caption is UNCHANGED else {"caption": caption}
    if decorative is not None:
        said["decorative"] = decorative
    headers = {}
    if isinstance(job, Job):
        headers["If-Match"] = yield from _tag_of_unchanged(job, retries)
    job_id = job.id if isinstance(job, Job) else job
    change = Send("PATCH", job_path(job_id), {"json": said, "headers": headers})
    response = yield from exchange(change, retries, settled=ChangedSince)
    if response.is_error:  # it was changed by an attempt whose answer was lost, or by others
        now = yield from read_job(job_id, retries)
        if not _is_as_said(now, said):
            raise errors.of_answer(response)
        return now
    return Job.model_validate_json(response.content)


def _tag_of_unchanged(job: Job, retries: int) -> Steps[str]:
    """The service's mark of the job as it is now, which must be as it was read. Lists have no
    marks, so it is read again wherever it is from.

    Raises: ChangedSince.
    """
    response = yield from exchange(Send("GET", job_path(job.id)), retries)
    now = Job.model_validate_json(response.content)
    if now.model_copy(update={"queue": job.queue}) != job:  # others may have come or gone
        raise ChangedSince(f"Job {job.id} has changed since it was read.")
    tag: str = response.headers["ETag"]
    return tag.removeprefix("W/")  # put there by a proxy that compresses


def _is_as_said(job: Job, said: dict[str, Any]) -> bool:
    if said.get("decorative", job.decorative) != job.decorative:
        return False
    edit = job.text if job.edited else ""  # which none is
    return "caption" not in said or edit.split() == (said["caption"] or "").split()


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
