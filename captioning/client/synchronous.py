"""The client that waits in its own thread. May be shared by threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from captioning.client import steps
from captioning.client.answers import Job, Outcome, Progress
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
        photo: Photo,
        *,
        model: str | None = None,
        decoding: str = Decoding.BEAM,
        num_captions: int = 1,
        max_words: int | None = None,
        timeout_s: float = 300,
    ) -> Job:
        """Submit one photograph and wait for its caption.

        Raises: CaptioningFailed, TimedOut.
        """
        options = steps.choices(model, decoding, num_captions, max_words)
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
        on_progress: Callable[[Progress], None] = steps.no_report,
    ) -> Iterator[Outcome]:
        """The outcome of each photograph, in the order given, as they come. A bad one spoils
        no other: its outcome has the error. None is waited for longer than `timeout_s`."""
        options = steps.choices(model, decoding, num_captions, max_words)
        many = steps.caption_many(photos, options, timeout_s, self._retries, on_progress)
        return self._iterate(many)

    def submit(
        self,
        photo: Photo,
        *,
        model: str | None = None,
        decoding: str = Decoding.BEAM,
        num_captions: int = 1,
        max_words: int | None = None,
        webhook_url: str | None = None,
    ) -> Job:
        """Queue one photograph: a path, bytes, an open file or a PIL image. A message is sent
        to `webhook_url` when it has ended."""
        options = steps.choices(model, decoding, num_captions, max_words)
        options["webhook_url"] = webhook_url
        return self._run(steps.submit(photo, options, self._retries))

    def job(self, job_id: str) -> Job:
        """Raises: JobNotFound."""
        return self._run(steps.read_job(job_id, self._retries))

    def wait(self, job_id: str, *, timeout_s: float = 300) -> Job:
        """The job once it has finished, or as it is when the time is up.

        Raises: JobNotFound.
        """
        return self._run(steps.wait(job_id, timeout_s, self._retries))

    def jobs(
        self, *, status: JobStatus | str | None = None, batch: str | None = None
    ) -> Iterator[Job]:
        """All jobs, newest first, fetched page by page as they are asked for."""
        return self._iterate(steps.list_jobs({"status": status, "batch": batch}, self._retries))

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
                    return self._http.request(step.method, step.path, **step.options)
                case Pause():
                    return time.sleep(step.seconds)
                case Read():
                    return as_upload(step.photo)
        except (httpx.TransportError, CaptioningError) as error:
            return error
