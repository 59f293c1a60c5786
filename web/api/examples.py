"""One example of each body, for the OpenAPI document and the page that shows it. Made of the
bodies themselves, so that they cannot be of another form."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from pydantic import BaseModel

from captioning import messages
from captioning.models import (
    Batch,
    Caption,
    Decoding,
    DeliveryStatus,
    Image,
    Job,
    JobStatus,
)
from web.api.schemas import (
    BatchBody,
    CaptionBody,
    EditForm,
    ImageBody,
    JobBody,
    JobByAddress,
    JobsBody,
    ModelBody,
    ModelsBody,
    ProblemBody,
    ProgressBody,
    QueueBody,
    RejectionBody,
)
from web.api.webhooks import AttemptBody, DeliveriesBody, DeliveryBody, SecretBody
from web.ibm_max import MetadataBody, PredictBody, PredictionBody

_JOB, _BATCH, _IMAGE, _DELIVERY = (
    f"01a2051bb6ad7782ba46e0ad9933344{digit}" for digit in ("a", "b", "c", "d")
)
_AT = datetime(2026, 11, 23, 11, 30, 5, 250_000, UTC)

_job = JobBody(
    id=_JOB,
    status=JobStatus.SUCCEEDED,
    model="bundled",
    decoding=Decoding.BEAM,
    num_captions=1,
    max_words=None,
    caption="Our cat on the sofa.",
    edited=True,
    decorative=False,
    alt="Our cat on the sofa.",
    captions=[
        CaptionBody(
            text="A cat on a sofa.", mean_log_probability=-0.41, model_revision="1f0c2b7d9a34"
        )
    ],
    error=None,
    image=ImageBody(
        url=f"/images/{_IMAGE}.jpg",
        thumbnail_url=f"/thumbnails/{_IMAGE}.jpg",
        filename="cat.jpg",
        width=1024,
        height=683,
    ),
    batch_id=_BATCH,
    attempts=1,
    created_at=_AT,
    started_at=_AT,
    finished_at=_AT,
    links={
        "self": f"/api/v1/jobs/{_JOB}",
        "page": f"/jobs/{_JOB}",
        "batch": f"/api/v1/batches/{_BATCH}",
    },
)
_delivery = DeliveryBody(
    id=_DELIVERY,
    job_id=_JOB,
    batch_id=None,
    url="https://example.com/hooks/captions",
    status=DeliveryStatus.DELIVERED,
    attempts=[AttemptBody(at=_AT, status_code=204, error=None, seconds=0.081)],
    next_at=None,
    created_at=_AT,
    links={"self": f"/api/v1/webhooks/deliveries/{_DELIVERY}"},
)

_row = Job(
    id=_JOB,
    status=JobStatus.SUCCEEDED,
    model="bundled",
    finished_at=_AT,
    image=Image(filename="cat.jpg"),
    captions=[
        Caption(text="A cat on a sofa.", mean_log_probability=-0.41, model_revision="1f0c2b7d9a34")
    ],
)
JOB_SUCCEEDED = json.loads(messages.of_job(_row))
BATCH_FINISHED = json.loads(
    messages.of_batch(Batch(id=_BATCH, rejected=[]), {JobStatus.SUCCEEDED: 20}, _AT)
)
"""Messages of webhooks."""

EXAMPLES: dict[str, BaseModel] = {
    type(example).__name__: example
    for example in (
        JobByAddress(image_url="https://example.com/cat.jpg", max_words=12),
        EditForm(caption="Our cat on the sofa.", decorative=False),
        _job,
        QueueBody(place=3, workers_online=True, expected_s=12),
        JobsBody(jobs=[_job], next_cursor=None, next=None),
        BatchBody(
            id=_BATCH,
            progress=ProgressBody(total=1, finished=1, succeeded=1),
            jobs=[_job],
            rejected=[
                RejectionBody(
                    filename="notes.txt",
                    code="unsupported_image_type",
                    message="The file is not an image of a supported type.",
                    index=1,
                )
            ],
            created_at=_AT,
            links={"self": f"/api/v1/batches/{_BATCH}", "page": f"/batches/{_BATCH}"},
        ),
        ModelsBody(models=[ModelBody(name="bundled", default=True, available=True)]),
        _delivery,
        DeliveriesBody(deliveries=[_delivery], next_cursor=None, next=None),
        SecretBody(secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),  # noqa: S106  (an example)
        PredictBody(
            status="ok",
            predictions=[PredictionBody(index="0", caption="A cat on a sofa.", probability=0.66)],
        ),
        MetadataBody(
            id="captioning",
            name="Captioning",
            description="The ClipCap model 'bundled'.",
            type="Image-to-Text Translation",
            source="https://arxiv.org/abs/2111.09734",
        ),
        ProblemBody(
            type="urn:captioning:problem:image_unreadable",
            title="The image is damaged and cannot be read",
            status=422,
            detail="The image is damaged or cut off.",
            code="image_unreadable",
        ),
    )
}
"""By the name of the body's class."""
