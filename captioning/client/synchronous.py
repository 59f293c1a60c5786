"""The client that waits in its own thread. May be shared by threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpx

from captioning.client import changes, many, steps
from captioning.client.answers import Batch, Job, Outcome, Progress
from captioning.client.changes import UNCHANGED, Kind, Unchanged
from captioning.client.exchange import Found, Pause, Read, Send, Step, Steps, T
from captioning.errors import CaptioningError
from captioning.models import Decoding, JobStatus
from captioning.queue import Photo, as_upload


class Client:
    """A service at a URL. `key` is sent as a bearer token.

    What is refused for now, or lost on the way, is sent again up to `retries` times, as late
    as the service asks for; uploads carry an idempotency key, so none is carried out twice.

    Raises, in every method: CaptioningError, of the type that the problem's code names;
    ServiceUnreachable.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout_s: float = 60,
        retries: int = 5,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            base_url=url, headers=headers, timeout=timeout_s, transport=transport
        )
        self._retries = retries

    def caption(
        self,
        photo: Photo | None = None,
        *,
        image_url: str | None = None,
        model: str | None = None,
        decoding: str = Decoding.BEAM,
        num_captions: int = 1,
        max_words: int | None = None,
        timeout_s: float = 300,
    ) -> Job:
        """Submit one photograph, or the public address of one, and wait for its caption.

        Raises: CaptioningFailed, TimedOut.
        """
        options = steps.choices(model, decoding, num_captions, max_words)
        options |= {"image_url": image_url}
        return self._run(steps.caption(photo, options, timeout_s, self._retries))

    def caption_many(
        self,
        photos: Sequence[Photo],
        *,
        model: str | None = None,
        decoding: str = Decoding.BEAM,
        num_captions: int = 1,
        max_words: int | None = None,
        timeout_s: float = 300,
        on_progress: Callable[[Progress], None] = many.no_report,
    ) -> Iterator[Outcome]:
        """The outcome of each photograph, in the order given, as they come. A bad one spoils
        no other: its outcome has the error. None is waited for longer than `timeout_s`."""
        options = steps.choices(model, decoding, num_captions, max_words)
        plan = many.caption_many(photos, options, timeout_s, self._retries, on_progress)
        return self._iterate(plan)

    def submit(
        self,
        photo: Photo | None = None,
        *,
        image_url: str | None = None,
        model: str | None = None,
        decoding: str = Decoding.BEAM,
        num_captions: int = 1,
        max_words: int | None = None,
        priority: str = "interactive",
        webhook_url: str | None = None,
    ) -> Job:
        """Queue one photograph: a path, bytes, an open file or a PIL image; or `image_url`, the
        public address from which the service fetches it. A message is sent to `webhook_url`
        when it has ended."""
        options = steps.choices(model, decoding, num_captions, max_words)
        options |= {"image_url": image_url, "priority": priority, "webhook_url": webhook_url}
        return self._run(steps.submit(photo, options, self._retries))

    def submit_many(
        self,
        photos: Sequence[Photo],
        *,
        model: str | None = None,
        decoding: str = Decoding.BEAM,
        num_captions: int = 1,
        max_words: int | None = None,
        priority: str = "interactive",
        webhook_url: str | None = None,
        on_progress: Callable[[Progress], None] = many.no_report,
    ) -> Iterator[Outcome]:
        """Queue photographs without waiting for captions, in as many batches as they need: an
        outcome for each, in the order given, whose job says in which batch it is. A message is
        sent to `webhook_url` when a batch has ended."""
        options = steps.choices(model, decoding, num_captions, max_words)
        options |= {"priority": priority, "webhook_url": webhook_url}
        return self._iterate(many.submit_many(photos, options, self._retries, on_progress))

    def job(self, job_id: str) -> Job:
        """Raises: JobNotFound."""
        return self._run(steps.read_job(job_id, self._retries))

    def wait(self, job_id: str, *, timeout_s: float = 300) -> Job:
        """The job once it has finished, or as it is when the time is up.

        Raises: JobNotFound.
        """
        return self._run(steps.wait(job_id, timeout_s, self._retries))

    def jobs(
        self,
        *,
        status: JobStatus | str | None = None,
        batch: str | None = None,
        model: str | None = None,
        text: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
    ) -> Iterator[Job]:
        """All jobs, newest first, fetched page by page as they are asked for. `text` are words
        that all occur in the captions; times have a time zone."""
        filters = {
            "status": status,
            "batch": batch,
            "model": model,
            "text": text,
            "created_after": created_after,
            "created_before": created_before,
        }
        return self._iterate(steps.list_jobs(filters, self._retries))

    def edit(
        self,
        job: Job | str,
        *,
        caption: str | Unchanged | None = UNCHANGED,
        decorative: bool | None = None,
    ) -> Job:
        """Put a text in place of the model's, or None to take it back; say whether the
        photograph is decorative. What is not named stays. Of a Job, rather than its id, nothing
        is changed unless it still is as it was read.

        Raises: JobNotFound, InvalidOption, ChangedSince.
        """
        return self._run(changes.edit(job, caption, decorative, self._retries))

    def cancel(self, job_id: str) -> Job:
        """End a job that waits or runs.

        Raises: JobNotFound, WrongState.
        """
        return self._run(changes.change_job(job_id, "cancel", self._retries))

    def retry(self, job_id: str) -> Job:
        """Queue a job again that has failed or was cancelled.

        Raises: JobNotFound, WrongState.
        """
        return self._run(changes.change_job(job_id, "retry", self._retries))

    def delete(self, job_id: str) -> None:
        """Take a job away for good, with its photograph and captions.

        Raises: JobNotFound.
        """
        self._run(changes.delete(steps.job_path(job_id), self._retries))

    def batch(self, batch_id: str) -> Batch:
        """Raises: BatchNotFound."""
        return self._run(changes.read_batch(batch_id, self._retries))

    def cancel_batch(self, batch_id: str) -> Batch:
        """End what waits or runs of a batch.

        Raises: BatchNotFound.
        """
        return self._run(changes.change_batch(batch_id, "cancel", self._retries))

    def retry_batch(self, batch_id: str) -> Batch:
        """Queue again what has failed of a batch.

        Raises: BatchNotFound.
        """
        return self._run(changes.change_batch(batch_id, "retry", self._retries))

    def delete_batch(self, batch_id: str) -> None:
        """Take a batch away for good, with all its jobs.

        Raises: BatchNotFound.
        """
        self._run(changes.delete(changes.batch_path(batch_id), self._retries))

    def export(self, batch_id: str, kind: Kind) -> bytes:
        """A batch as a file: a table (`csv`, UTF-8), JSON lines, or a ZIP of texts.

        Raises: BatchNotFound.
        """
        return self._run(changes.export(batch_id, kind, self._retries))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, plan: Steps[T]) -> T:
        result: Any = None
        while True:
            try:
                step = plan.send(result)
            except StopIteration as end:
                value: T = end.value
                return value
            result = self._do(step)

    def _iterate(self, plan: Steps[None]) -> Iterator[Any]:
        """What is found on the way."""
        result: Any = None
        while True:
            try:
                step = plan.send(result)
            except StopIteration:
                return
            if isinstance(step, Found):
                yield step.value
                result = None
            else:
                result = self._do(step)

    def _do(self, step: Step) -> Any:
        try:
            match step:
                case Send():
                    patience = step.patience(self._http.timeout)
                    return self._http.request(
                        step.method, step.path, timeout=patience, **step.options
                    )
                case Pause():
                    return time.sleep(step.seconds)
                case Read():
                    return as_upload(step.photo)
        except (httpx.TransportError, CaptioningError) as error:
            return error
