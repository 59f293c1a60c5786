"""Where the work is done: claim a micro-batch, read and decode it, run the model, save.

Several threads work at one station. Each claims for itself and decodes while another has
the model: `_device` is held by one thread at a time, and no database session is open while
anything slow happens.
"""

from __future__ import annotations

import io
import logging
import math
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from PIL import Image

from captioning import jobs
from captioning.database import storable
from captioning.errors import DatabaseUnavailable, Unavailable
from captioning.jobs import CaptionText, Claim, ClaimedJob
from captioning.models import Decoding, JobStatus
from captioning.queue import Queue
from clipcap import Captioner, DecodingOptions
from worker.courier import Courier
from worker.failures import CaptionInvalid, ImageDamaged, Then, judge
from worker.metrics import WorkerMetrics
from worker.models import BLANK

logger = logging.getLogger(__name__)

DECODE_THREADS = min(4, os.cpu_count() or 1)
"""More than there are processors would only keep the model from them."""
LAST_PAUSE_S = 10.0
AWAY_PAUSE_S = 5.0
"""Of a worker that finds the image store away, before its next claim."""
BROKEN_EXIT_CODE = 71
ACTS = {Then.FAIL: jobs.fail, Then.RETRY: jobs.fail_or_retry, Then.WAIT: jobs.put_off}


@dataclass(frozen=True)
class Decoded:
    """A claimed job with its pixels `(3, H, W)`, ready for the model."""

    job: ClaimedJob
    pixels: torch.Tensor


class Station:
    """One process's models and the claims that its threads hold."""

    def __init__(self, queue: Queue, captioners: Mapping[str, Captioner]) -> None:
        self.captioners = captioners
        self.metrics = WorkerMetrics(captioners)
        self.courier = Courier(queue, self.metrics)
        self._queue = queue
        self._device = threading.Lock()
        self._decoders = ThreadPoolExecutor(DECODE_THREADS, thread_name_prefix="decode")
        self._stopping = threading.Event()
        self._moved: dict[str, float | None] = {}
        """When the claim of each token last got on, by time.monotonic(); None of one that waits
        for the model, which another has."""
        self._claimed_at = time.monotonic()

    @property
    def tokens(self) -> frozenset[str]:
        """The leases that are held now, for the heartbeat to renew."""
        return frozenset(self._moved)

    @property
    def moved_at(self) -> float:
        """When the claim that has stood still for longest last got on, or where there is none,
        when the last was taken or ended; by time.monotonic()."""
        moved = list(self._moved.values())
        return min((at for at in moved if at is not None), default=self._claimed_at)

    def stop(self) -> None:
        """Claim no more: finish the micro-batch that has the model, give back the rest."""
        self._stopping.set()

    def close(self) -> None:
        self.stop()
        self._decoders.shutdown()
        self.courier.stop()

    def work(self) -> int:
        """Caption until nothing is claimable; returns the number of jobs taken.

        Models take turns, one micro-batch each, so that none starves another.
        """
        taken = 0
        while step := sum(self._work_once(model) for model in self.captioners):
            taken += step
        return taken

    def _work_once(self, model: str) -> int:
        if self._stopping.is_set():
            return 0
        with self._queue.database.write() as session:
            claim = jobs.claim(
                session,
                model,
                limit=self._queue.settings.batch_size,
                lease_s=self._queue.settings.lease_s,
                revision=self.captioners[model].revision,
            )
        if claim is None:
            return 0
        self.metrics.claimed(claim)
        self._claimed_at = time.monotonic()
        if claim.answered:
            self._tell(claim.answered)
            subjects = _subjects(claim.answered)
            logger.info("%d had been captioned before", len(claim.answered), extra=subjects)
        if claim.jobs:
            self._moved[claim.token] = time.monotonic()
            try:
                self._process(claim)
            finally:
                del self._moved[claim.token]
                self._claimed_at = time.monotonic()
        return len(claim.jobs) + len(claim.answered)

    def _process(self, claim: Claim) -> None:
        captioner = self.captioners[claim.model]
        started = time.monotonic()
        decoded, failures = self._decode(captioner, claim)
        self._moved[claim.token] = None
        with self._device:
            self._moved[claim.token] = time.monotonic()
            if self._stopping.is_set():
                self._give_back(claim)
                return
            began = time.perf_counter()
            captions, model_failures = captioner.run(lambda: _caption(captioner, decoded))
            model_s = time.perf_counter() - began
            broken = bool(decoded and not captions) and not _works(captioner)
        self.metrics.ran(claim.model, images=len(decoded), seconds=model_s)
        self._save(claim, captioner.revision, captions, failures | model_failures)
        if broken:
            logger.critical("%s captions not even a blank image any more, exiting", claim.model)
            os._exit(BROKEN_EXIT_CODE)  # a device in such a state may not let go of a thread
        logger.info(
            "captioned %d of %d images with %s in %.0f ms",
            len(captions),
            len(claim.jobs),
            claim.model,
            (time.monotonic() - started) * 1000,
            extra=_subjects(claim.jobs),
        )

    def _decode(
        self, captioner: Captioner, claim: Claim
    ) -> tuple[list[Decoded], dict[str, Exception]]:
        def read(job: ClaimedJob) -> Decoded | Exception:
            try:
                pixels = _pixels(captioner, self._queue.storage.get(job.image_key))
            except Exception as error:  # judged by worker/failures.py, job by job
                return error
            finally:
                self._moved[claim.token] = time.monotonic()
            return Decoded(job, pixels)

        outcomes = zip(claim.jobs, self._decoders.map(read, claim.jobs), strict=True)
        decoded: list[Decoded] = []
        failures: dict[str, Exception] = {}
        for job, outcome in outcomes:
            if isinstance(outcome, Decoded):
                decoded.append(outcome)
            else:
                failures[job.id] = outcome
        return decoded, failures

    def _save(
        self,
        claim: Claim,
        revision: str,
        captions: Mapping[str, Sequence[CaptionText]],
        failures: Mapping[str, Exception],
    ) -> None:
        """One transaction for the micro-batch. Jobs that are no longer ours are left alone."""
        unavailable = [error for error in failures.values() if isinstance(error, Unavailable)]
        away = bool(unavailable) and self._queue.storage.is_away()
        verdicts = {job_id: judge(error, away=away) for job_id, error in failures.items()}

        def save() -> dict[str, JobStatus]:
            with self._queue.database.write() as session:
                saved = jobs.succeed(session, claim.token, captions, model_revision=revision)
                outcomes = dict.fromkeys(saved, JobStatus.SUCCEEDED)
                for job_id, verdict in verdicts.items():
                    act = ACTS[verdict.then]
                    code, message = verdict.code, verdict.message
                    if status := act(session, claim.token, job_id, code=code, message=message):
                        outcomes[job_id] = status
            return outcomes

        for job_id, error in failures.items():
            if verdicts[job_id].then is Then.WAIT:
                continue
            job = next(job for job in claim.jobs if job.id == job_id)
            subject = {"job_id": job.id, "request_id": job.request_id}
            logger.warning("job %s failed", job.id, exc_info=error, extra=subject)
        outcomes = self._insist(claim, save)
        self.metrics.ended(claim, outcomes, verdicts)
        self._tell(claim.jobs)
        lost = [job for job in claim.jobs if job.id not in outcomes]
        if lost:
            subjects = _subjects(lost)
            logger.warning("%d outcomes not saved: the lease was lost", len(lost), extra=subjects)
        if away:  # nor is what waits behind them to be had
            subjects = _subjects(claim.jobs)
            logger.warning("put off for %d s: %s", jobs.WAIT_S, unavailable[0], extra=subjects)
            self._stopping.wait(AWAY_PAUSE_S)

    def _tell(self, ended: Sequence[ClaimedJob]) -> None:
        if any(job.webhook for job in ended):
            self.courier.wake()

    def _give_back(self, claim: Claim) -> None:
        with self._queue.database.write() as session:
            jobs.give_back(session, claim.token, [job.id for job in claim.jobs])

    def _insist(
        self, claim: Claim, save: Callable[[], dict[str, JobStatus]]
    ) -> dict[str, JobStatus]:
        """Finished work outlives an outage of the database, until the worker is stopped."""
        pause_s = 0.5
        while True:
            self._moved[claim.token] = time.monotonic()  # it knows what it waits for
            try:
                return save()
            except DatabaseUnavailable as error:
                logger.warning("not saved, trying again in %.1f s: %s", pause_s, error)
                if self._stopping.wait(pause_s):
                    raise
                pause_s = min(pause_s * 2, LAST_PAUSE_S)


def _pixels(captioner: Captioner, data: bytes) -> torch.Tensor:
    """Raises: ImageDamaged."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return captioner.preprocess(image)
    except MemoryError:
        raise
    except Exception as error:
        raise ImageDamaged("Its stored bytes are damaged.") from error


def _subjects(claimed: Sequence[ClaimedJob]) -> dict[str, list[str]]:
    """What a log line about these jobs carries."""
    request_ids = {job.request_id for job in claimed if job.request_id}
    return {"job_ids": [job.id for job in claimed], "request_ids": sorted(request_ids)}


def _caption(
    captioner: Captioner, decoded: Sequence[Decoded]
) -> tuple[dict[str, list[CaptionText]], dict[str, Exception]]:
    """Caption a micro-batch. What fails together is tried apart, so that a bad image fails
    alone and one that is too large for the device's memory goes in smaller company."""
    if not decoded:
        return {}, {}
    try:
        return _sound(_run_model(captioner, decoded))
    except Exception as error:  # judged by worker/failures.py once it stands alone
        if len(decoded) == 1:
            return {}, {decoded[0].job.id: error}
        logger.warning("a micro-batch of %d failed, halving it: %r", len(decoded), error)
    middle = len(decoded) // 2
    captions, failures = _caption(captioner, decoded[:middle])
    more_captions, more_failures = _caption(captioner, decoded[middle:])
    return captions | more_captions, failures | more_failures


def _works(captioner: Captioner) -> bool:
    """Whether it captions what it captioned when it was loaded. After some errors a device
    refuses everything until the process ends: a worker in such a state would fail the whole queue,
    faster than others can caption it."""
    job = ClaimedJob("", "", Decoding.GREEDY, 1, None, 0, None, 0, webhook=False)
    blank = Decoded(job, captioner.preprocess(BLANK))
    captions, _ = captioner.run(lambda: _caption(captioner, [blank]))
    return bool(captions)


def _sound(
    captions: Mapping[str, list[CaptionText]],
) -> tuple[dict[str, list[CaptionText]], dict[str, Exception]]:
    """Set apart what a database would refuse, and the rest of the micro-batch with it: SQLite
    keeps no NaN, PostgreSQL no NUL, neither of them half a surrogate pair."""
    failures: dict[str, Exception] = {}
    for job_id, found in captions.items():
        for caption in found:
            if not math.isfinite(caption.mean_log_probability):
                score = caption.mean_log_probability
                failures[job_id] = CaptionInvalid(f"The score of a caption is {score}.")
            elif caption.text != storable(caption.text):
                failures[job_id] = CaptionInvalid("A caption holds characters that are no text.")
    return {job_id: captions[job_id] for job_id in captions.keys() - failures.keys()}, failures


def _run_model(captioner: Captioner, decoded: Sequence[Decoded]) -> dict[str, list[CaptionText]]:
    """One pass of encoder and mapper for all; one search for each choice of options."""
    embeddings = captioner.encode([item.pixels for item in decoded])
    prefixes = captioner.prefix(embeddings)
    rows_by_options: dict[DecodingOptions, list[int]] = defaultdict(list)
    for row, item in enumerate(decoded):
        rows_by_options[_options(captioner, item.job)].append(row)
    captions = {}
    for options, rows in rows_by_options.items():
        candidates = captioner.decode(
            prefixes[rows], options, embedding=embeddings[rows], clip_scores=False
        )
        for row, found in zip(rows, candidates, strict=True):
            captions[decoded[row].job.id] = [
                CaptionText(caption.text, caption.mean_log_probability) for caption in found
            ]
    return captions


def _options(captioner: Captioner, job: ClaimedJob) -> DecodingOptions:
    return captioner.defaults.override(
        method=job.decoding.value, num_captions=job.num_captions, max_words=job.max_words
    )
