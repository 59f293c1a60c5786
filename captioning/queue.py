"""The queue as its users see it: hand in photographs, wait, read captions.

The web and Python programs inside the cluster share this one way in, so that both verify,
store, insert and ring in the same order (see `_store`, which is where nothing gets lost).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image as PILImage

from captioning import idempotency, jobs, queries, quotas, removal, webhooks
from captioning.access import EVERYBODY, Caller
from captioning.broker import Doorbell, make_celery
from captioning.database import Database
from captioning.errors import (
    CaptioningError,
    ImageRejected,
    InvalidOption,
    NoImage,
    QueueFull,
    StorageFull,
    StorageUnavailable,
    TooManyImages,
    Unavailable,
    UnknownModel,
)
from captioning.idempotency import AlreadySubmitted, Once
from captioning.images import NormalisedImage, as_file, normalise
from captioning.jobs import JobOptions
from captioning.models import Batch, Decoding, Image, Job, JobStatus, Priority
from captioning.settings import Settings, load_settings
from captioning.storage import Storage

logger = logging.getLogger(__name__)

FIRST_POLL_S = 0.01
LAST_POLL_S = 0.5
POLL_GROWTH = 1.1
"""So that an outcome is seen at most a tenth later than it could have been."""
REFUSALS_OF_A_STORE_THAT_IS_AWAY = 3
DELETED_AT_ONCE = 100
MAX_WORDS = 100
"""The highest limit that may be asked for; no captioner says as much."""

MAX_OWNER = 64
PRIORITIES = {priority.name.lower(): priority for priority in Priority}


@dataclass(frozen=True)
class Upload:
    """One file as it was sent. The name is for display and never trusted as a path."""

    filename: str
    data: bytes

    @property
    def display_name(self) -> str:
        name = self.filename.replace("\\", "/").rsplit("/", 1)[-1]
        printable = "".join(c for c in name if c.isprintable())
        return printable[:255] or "photograph"


Photo = str | Path | bytes | BinaryIO | PILImage.Image | Upload


@dataclass(frozen=True)
class Rejection:
    """Why one file of an upload became no job."""

    filename: str
    code: str
    message: str
    index: int | None = None
    """The file's place in the upload, from 0; names may be the same. Old batches have none."""


@dataclass(frozen=True)
class Submission:
    """What became of an upload: one job for each good file, a reason for each bad one."""

    batch_id: str
    job_ids: tuple[str, ...]
    rejected: tuple[Rejection, ...]


class Queue:
    """A connection to database, image store and broker. Safe to share between threads."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.database = Database(settings.database_url)
        self.storage = Storage(settings.storage_url)
        self.doorbell = Doorbell(make_celery(settings))
        self.caller = EVERYBODY
        self._whole = self.database

    def seen_by(self, caller: Caller) -> Queue:
        """This queue as a caller sees it: what they hand in is theirs, and what is not theirs
        is not there. Shares all connections."""
        if caller is self.caller:
            return self
        seen = copy(self)
        seen.caller = caller
        seen.database = caller.seen(self._whole)
        return seen

    def read(self, job_id: str) -> Job:
        """A job as it is now, with its captions.

        Raises: JobNotFound, DatabaseUnavailable.
        """
        return queries.read_job(self._whole, job_id, self.caller)

    def submit(
        self,
        photo: Photo | Callable[[], Upload],
        *,
        model: str | None = None,
        decoding: str = Decoding.BEAM,
        num_captions: int = 1,
        max_words: int | None = None,
        priority: str = "interactive",
        owner: str = "",
        webhook_url: str | None = None,
        once: Once | None = None,
    ) -> JobHandle:
        """Queue one photograph: a path, bytes, an open file, a PIL image, or what gets one when
        it is needed. Captions end as whole sentences within `max_words`. Every `interactive`
        job goes before every `bulk` one; within a priority, owners take turns. A message is
        sent to `webhook_url` when it has ended. What was submitted `once` is not submitted again.

        Raises: ImageRejected, InvalidRequest, LimitReached, Unavailable.
        """
        options = self.options(
            model,
            decoding,
            num_captions,
            max_words,
            priority=priority,
            owner=owner,
            webhook_url=webhook_url,
        )

        def make() -> str:
            self._require_room()
            upload = photo() if callable(photo) else as_upload(photo)
            good = [(upload, self._normalise(upload))]
            return self._store(good, options, batch=None, once=once)[0]

        once = once and once.of(options.owner)
        return JobHandle(self, self._made(once, make))

    def submit_many(
        self,
        uploads: Iterable[Upload | Rejection],
        options: JobOptions,
        *,
        once: Once | None = None,
    ) -> Submission:
        """Queue an upload of one or more files as one batch. A bad file spoils no other.

        Uploads are taken one by one, so that only one of them need be in memory. A rejection
        stands for one that could not be got.

        Raises: NoImage when there is no file at all, TooManyImages, IdempotencyKeyReused,
        QuotaExceeded, Unavailable, and AllRejected when no file was good: then nothing is stored.
        """
        once = once and once.of(options.owner)
        batch_id = self._made(once, lambda: self._make_batch(uploads, options, once))
        with self.database.read() as session:
            batch = queries.get_batch(session, batch_id)
            job_ids = tuple(queries.batch_job_ids(session, batch_id))
        return Submission(batch.id, job_ids, tuple(Rejection(**item) for item in batch.rejected))

    def options(
        self,
        model: str | None,
        decoding: str,
        num_captions: int,
        max_words: int | None = None,
        *,
        priority: str = "interactive",
        owner: str = "",
        webhook_url: str | None = None,
    ) -> JobOptions:
        """Check what a submitter chose.

        Raises: UnknownModel, InvalidOption, WebhookUrlRefused.
        """
        name = model or self.settings.default_model
        if name not in self.settings.models:
            raise UnknownModel(f"There is no model {name!r}.")
        if decoding not in list(Decoding):
            raise InvalidOption(f"decoding must be one of {', '.join(Decoding)}.")
        if not 1 <= num_captions <= self.settings.max_captions:
            raise InvalidOption(f"num_captions must be from 1 to {self.settings.max_captions}.")
        if decoding == Decoding.GREEDY and num_captions > 1:
            raise InvalidOption("Greedy search finds one caption; use beam search for several.")
        if max_words is not None and not 1 <= max_words <= MAX_WORDS:
            raise InvalidOption(f"max_words must be from 1 to {MAX_WORDS}.")
        if priority not in PRIORITIES:
            raise InvalidOption(f"priority must be one of {', '.join(PRIORITIES)}.")
        if not (owner and self.caller.sees_all):  # nobody else may choose
            owner = self.caller.owner or ""
        if len(owner) > MAX_OWNER:
            raise InvalidOption(f"owner must have at most {MAX_OWNER} characters.")
        if webhook_url is not None:
            webhooks.check_url(webhook_url, self.settings.webhook_networks)
        return JobOptions(
            name,
            Decoding(decoding),
            num_captions,
            max_words,
            PRIORITIES[priority],
            owner,
            webhook_url,
        )

    def close(self) -> None:
        self.database.close()
        self.doorbell.close()

    def _made(self, once: Once | None, make: Callable[[], str]) -> str:
        """The id that `make` returns, or that it returned when it was first asked to."""
        if once is None:
            return make()
        with self.database.read() as session:
            made_id = idempotency.recall(session, once)
        if made_id is not None:
            return made_id
        try:
            return make()
        except AlreadySubmitted:  # by another request, since we looked
            with self.database.read() as session:
                made_id = idempotency.recall(session, once)
            if made_id is None:
                raise
            return made_id

    def _make_batch(
        self, uploads: Iterable[Upload | Rejection], options: JobOptions, once: Once | None
    ) -> str:
        self._require_room()
        good: list[tuple[Upload, NormalisedImage]] = []
        rejected: list[Rejection] = []
        for index, upload in enumerate(uploads):
            if index == self.settings.max_images_per_upload:
                raise TooManyImages(
                    f"An upload may hold {self.settings.max_images_per_upload} images at most."
                )
            if isinstance(upload, Rejection):
                rejected.append(replace(upload, index=index))
                continue
            try:
                good.append((Upload(upload.filename, b""), self._normalise(upload)))
            except ImageRejected as error:
                rejected.append(Rejection(upload.display_name, error.code, str(error), index))
        if not good and not rejected:
            raise NoImage("Choose at least one image.")
        if not good:
            raise AllRejected(tuple(rejected))
        batch = Batch(owner=options.owner, rejected=[vars(rejection) for rejection in rejected])
        self._store(good, options, batch=batch, once=once)
        return batch.id

    def _require_room(self) -> None:
        """Refuse an upload before it costs anything. One that may begin is taken whole: the
        limits leave room for as many as arrive at once.

        Raises: QueueFull, StorageFull, QuotaExceeded, Unavailable.
        """
        limit = self.settings.max_queued_jobs
        with self._whole.read() as session:
            if self._images_per_day is not None:
                quotas.require_left(session, self.caller.owner or "", self._images_per_day)
            if queries.count_queued(session, at_most=limit) == limit:
                raise QueueFull(f"{limit} photographs are waiting already.")
        free = self.storage.free_bytes()
        if free is not None and free < self.settings.min_free_bytes:
            raise StorageFull(f"The disk of the image store has {free} bytes left.")

    @property
    def _images_per_day(self) -> int | None:
        """The caller's quota: who comes without a key has none."""
        own = self.caller.limits.images_per_day
        quota = self.settings.images_per_day if own is None else own
        return quota if self.caller.owner else None

    def _normalise(self, upload: Upload) -> NormalisedImage:
        return normalise(
            upload.data,
            max_bytes=self.settings.max_image_bytes,
            max_pixels=self.settings.max_image_pixels,
        )

    def _store(
        self,
        good: Sequence[tuple[Upload, NormalisedImage]],
        options: JobOptions,
        *,
        batch: Batch | None,
        once: Once | None,
    ) -> tuple[str, ...]:
        """Make jobs of verified images.

        1. Insert the image rows as pending: from here on nothing can be orphaned.
        2. Write the bytes.
        3. Insert batch, jobs and idempotency key and mark the images stored, in one transaction.
        4. Ring. If the broker is down the jobs are queued all the same.

        What fails before 3 has been committed is undone at once; what is killed is undone by
        the sweeper.
        """
        images = [
            Image(
                owner=options.owner,
                filename=upload.display_name,
                sha256=normalised.sha256,
                width=normalised.width,
                height=normalised.height,
            )
            for upload, normalised in good
        ]
        with self._whole.write() as session:
            session.add_all(images)
        try:
            objects: dict[str, bytes] = {}
            for image, (_, normalised) in zip(images, good, strict=True):
                objects[image.key] = normalised.jpeg
                objects[image.thumbnail_key] = normalised.thumbnail
            self.storage.put_all(objects)
            with self._whole.write() as session:
                if batch:
                    session.add(batch)
                    session.flush()
                queued = jobs.submit(
                    session,
                    images,
                    options,
                    batch=batch,
                    max_attempts=self.settings.max_attempts,
                )
                if self._images_per_day is not None:
                    owner = self.caller.owner or ""
                    quotas.take(session, owner, len(images), self._images_per_day)
                if once:
                    idempotency.remember(session, once, batch.id if batch else queued[0].id)
        except CaptioningError:
            with suppress(CaptioningError):  # the store may be what failed; the sweeper follows
                self.discard(images)
            raise
        job_ids = tuple(job.id for job in queued)
        logger.info("queued %d jobs", len(job_ids), extra={"job_ids": job_ids})
        self.doorbell.ring(options.model, times=-(-len(queued) // self.settings.batch_size))
        return job_ids

    def delete(self, job_ids: Iterable[str]) -> int:
        """Take jobs away, with captions, images and thumbnails; returns how many there were.
        Those that run end with it: their worker saves nothing.

        Raises: DatabaseUnavailable. Bytes that cannot be removed now are left to the sweeper.
        """
        with self.database.read() as session:  # what is not the caller's is not there
            found = queries.existing_jobs(session, job_ids)
        gone: set[str] = set()
        if len(found) > 1:
            for first in range(0, len(found), DELETED_AT_ONCE):
                chunk = found[first : first + DELETED_AT_ONCE]
                gone |= self._delete(chunk, patiently=False)
        for job_id in found:
            if job_id not in gone:
                gone |= self._delete([job_id], patiently=True)
        return len(gone)

    def delete_batch(self, batch_id: str) -> None:
        """Take a batch and all its jobs away.

        Raises: BatchNotFound, DatabaseUnavailable.
        """
        with self.database.read() as session:
            batch_id = queries.get_batch(session, batch_id).id
            job_ids = queries.batch_job_ids(session, batch_id)
        self.delete(job_ids)
        with self._whole.write() as session:  # one that no job was left of
            removal.remove_empty(session, [batch_id])

    def _delete(self, job_ids: Sequence[str], *, patiently: bool) -> frozenset[str]:
        with self._whole.write() as session:
            removed = removal.remove(session, job_ids, patiently=patiently)
        try:
            self.discard(removed.images)
        except Unavailable as error:
            logger.warning("bytes of %d images left behind: %s", len(removed.images), error)
        logger.info("deleted %d jobs", len(removed.job_ids), extra={"job_ids": [*removed.job_ids]})
        return removed.job_ids

    def discard(self, images: Sequence[Image]) -> None:
        """Remove the bytes, then the rows, of those images that no job refers to.

        The tables are asked again: a commit that was reported as failed may have succeeded, or
        may still be under way in a server whose connection broke.
        An image whose bytes cannot be removed keeps its row and stands in no other's way,
        but a store that refuses several is taken to be away.

        Raises: Unavailable, when the rest has been removed.
        """
        if not images:
            return
        with self._whole.write() as session:
            in_use = queries.images_in_use(session, [image.id for image in images])
        gone: list[str] = []
        failures: list[StorageUnavailable] = []
        for image in images:
            if image.id in in_use:
                continue
            if len(failures) == REFUSALS_OF_A_STORE_THAT_IS_AWAY:
                break
            try:
                self.storage.delete([image.key, image.thumbnail_key])
                gone.append(image.id)
            except StorageUnavailable as error:
                failures.append(error)
        if gone:
            with self._whole.write() as session:
                queries.delete_pending_images(session, gone)
        if failures:
            raise failures[0]


class AllRejected(ImageRejected):
    """None of the files can be captioned."""

    code = "all_rejected"

    def __init__(self, rejected: tuple[Rejection, ...]) -> None:
        super().__init__("None of the files is an image that can be captioned.")
        self.rejected = rejected


class JobHandle:
    """A submitted job, read from the database whenever it is asked."""

    def __init__(self, queue: Queue, job_id: str) -> None:
        self._queue = queue
        self.id = job_id

    def __repr__(self) -> str:
        return f"<JobHandle {self.id}>"

    def read(self) -> Job:
        """The row as it is now. Raises: JobNotFound."""
        return self._queue.read(self.id)

    @property
    def status(self) -> JobStatus:
        return JobStatus(self.read().status)

    @property
    def captions(self) -> list[str]:
        """The candidate texts, best first; empty until the job has succeeded."""
        return [caption.text for caption in self.read().captions]

    def wait(self, timeout_s: float = 60) -> JobStatus:
        """Wait until the job has finished, or the time is up; returns the status it has."""
        deadline = time.monotonic() + timeout_s
        pause_s = FIRST_POLL_S
        while not (status := self.status).finished and time.monotonic() < deadline:
            time.sleep(min(pause_s, max(deadline - time.monotonic(), 0)))
            pause_s = min(pause_s * POLL_GROWTH, LAST_POLL_S)
        return status


def connect(
    database_url: str | None = None, *, broker: str | None = None, storage: str | None = None
) -> Queue:
    """Connect from inside the cluster. What is left out comes from CAPTIONING_… settings.

    Raises: SettingsError.
    """
    given = {"database_url": database_url, "broker_url": broker, "storage_url": storage}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return Queue(load_settings(**chosen))


def as_upload(photo: Photo) -> Upload:
    if isinstance(photo, Upload):
        return photo
    if isinstance(photo, str | Path):
        path = Path(photo)
        try:
            return Upload(path.name, path.read_bytes())
        except OSError as error:
            raise NoImage(f"{path}: {error.strerror}") from error
    if isinstance(photo, bytes):
        return Upload("photograph", photo)
    if isinstance(photo, PILImage.Image):
        return Upload("photograph.png", as_file(photo))
    name = getattr(photo, "name", None)  # a number, where the file was opened by one
    return Upload(Path(name).name if isinstance(name, str) else "photograph", photo.read())
