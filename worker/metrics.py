"""What one worker counts for Prometheus: waiting, micro-batches, model time, outcomes, sweeps,
messages."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import Counter, Gauge, Histogram

from captioning.jobs import Claim
from captioning.metrics import new_registry
from captioning.models import DeliveryStatus, JobStatus
from captioning.sweeper import SweepReport
from clipcap import Captioner
from worker.failures import FATAL_CODES, Verdict

WAIT_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600)
MESSAGE_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)


class WorkerMetrics:
    """The registry of one worker process. Safe to use from its threads."""

    def __init__(self, captioners: Mapping[str, Captioner]) -> None:
        self.registry = new_registry()
        model = Gauge(
            "captioning_model_info",
            "The models that this worker serves.",
            ["model", "revision", "device"],
            registry=self.registry,
        )
        for name, captioner in captioners.items():
            model.labels(name, captioner.revision, str(captioner.device)).set(1)
        self._waited_s = Histogram(
            "captioning_queue_wait_seconds",
            "From the moment a job could be claimed to its claim.",
            ["model"],
            buckets=WAIT_BUCKETS_S,
            registry=self.registry,
        )
        self._batch = Histogram(
            "captioning_micro_batch_images",
            "Jobs of one claim that were to run.",
            ["model"],
            buckets=BATCH_BUCKETS,
            registry=self.registry,
        )
        self._model_s = self._counter(
            "captioning_model_seconds", "Time that a model had the device.", "model"
        )
        self._images = self._counter(
            "captioning_model_images", "Images that a model was given.", "model"
        )
        self._finished = self._counter(
            "captioning_jobs_finished",
            "Jobs that this worker ended: succeeded, or the error's code.",
            "model",
            "outcome",
        )
        self._answered = self._counter(
            "captioning_jobs_answered",
            "Jobs that a model was spared: the same had been captioned before.",
            "model",
        )
        self._retried = self._counter(
            "captioning_jobs_retried", "Jobs put back after a passing failure.", "model", "code"
        )
        self._lost = self._counter(
            "captioning_leases_lost",
            "Jobs whose outcome came too late: they were another's by then, or cancelled.",
            "model",
        )
        self._sweeps = self._counter("captioning_sweeps", "Sweeps that were this worker's turn.")
        self._swept = self._counter(
            "captioning_swept", "What sweeps put right: jobs of dead workers, dead uploads.", "what"
        )
        self._messages = self._counter(
            "captioning_webhook_attempts",
            "Attempts to deliver a message: delivered, retried later, failed for good, or lost: "
            "its outcome came too late.",
            "outcome",
        )
        self._message_s = Histogram(
            "captioning_webhook_seconds",
            "From an attempt's beginning to its outcome.",
            buckets=MESSAGE_BUCKETS_S,
            registry=self.registry,
        )
        # A rate needs the zero before the first.
        for name in captioners:
            for outcome in (JobStatus.SUCCEEDED.value, *FATAL_CODES):
                self._finished.labels(name, outcome)
        for outcome in ("delivered", "retried", "failed"):
            self._messages.labels(outcome)
        for what in ("queued_again", "crashed", "image_removed"):
            self._swept.labels(what)

    def claimed(self, claim: Claim) -> None:
        if claim.jobs:
            self._batch.labels(claim.model).observe(len(claim.jobs))
        for job in (*claim.jobs, *claim.answered):
            self._waited_s.labels(claim.model).observe(job.waited_s)
        for _ in claim.answered:
            self._answered.labels(claim.model).inc()
            self._finished.labels(claim.model, JobStatus.SUCCEEDED.value).inc()

    def ran(self, model: str, *, images: int, seconds: float) -> None:
        self._model_s.labels(model).inc(seconds)
        self._images.labels(model).inc(images)

    def ended(
        self, claim: Claim, outcomes: Mapping[str, JobStatus], verdicts: Mapping[str, Verdict]
    ) -> None:
        """`outcomes` are the new states of the jobs that were still held."""
        for job in claim.jobs:
            status = outcomes.get(job.id)
            if status is None:
                self._lost.labels(claim.model).inc()
            elif status == JobStatus.SUCCEEDED:
                self._finished.labels(claim.model, status.value).inc()
            elif status == JobStatus.FAILED:
                self._finished.labels(claim.model, verdicts[job.id].code).inc()
            else:
                self._retried.labels(claim.model, verdicts[job.id].code).inc()

    def swept(self, report: SweepReport) -> None:
        self._sweeps.inc()
        self._swept.labels("queued_again").inc(len(report.queued_again))
        self._swept.labels("crashed").inc(len(report.crashed))
        self._swept.labels("image_removed").inc(report.images_removed)

    def delivered(self, status: DeliveryStatus | None, seconds: float) -> None:
        """`status` is the delivery's new one, None where it was another's by then."""
        outcome = "lost" if status is None else status.value
        self._messages.labels("retried" if status == DeliveryStatus.PENDING else outcome).inc()
        self._message_s.observe(seconds)

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(name, meaning, labels, registry=self.registry)
