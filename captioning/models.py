"""The tables, and nothing that happens to them: captioning/jobs.py holds the verbs.

Ids are UUIDv7 in hex: they sort by time, so `ORDER BY id` is oldest first and an id is a
cursor, and their 74 random bits make them unguessable names.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from enum import IntEnum, StrEnum
from typing import Any

import uuid_utils
from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    MetaData,
    String,
    Text,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from captioning.database import UtcDateTime, db_now


class JobStatus(StrEnum):
    """queued → running → succeeded | failed | cancelled."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        return self not in (JobStatus.QUEUED, JobStatus.RUNNING)


class Priority(IntEnum):
    """Every interactive job goes before every bulk one."""

    INTERACTIVE = 0
    BULK = 1


class Role(StrEnum):
    """What the holder of an access key sees: what is their own, or everything."""

    USER = "user"
    ADMIN = "admin"


class Decoding(StrEnum):
    """How the decoder searches for a caption."""

    BEAM = "beam"
    GREEDY = "greedy"


class DeliveryStatus(StrEnum):
    """pending ⇄ sending → delivered | failed, and back to pending when redelivered."""

    PENDING = "pending"
    SENDING = "sending"
    DELIVERED = "delivered"
    FAILED = "failed"


def new_id() -> str:
    return uuid_utils.uuid7().hex


def looked_up_id(text: str) -> str:
    """What to look for when somebody names an id: the text, or "", which no row has, where it
    cannot be one. PostgreSQL refuses to compare with some texts (a NUL) instead of finding
    nothing."""
    return text if re.fullmatch("[0-9a-f]{32}", text) else ""


Id = String(32)


def _owner() -> Mapped[str]:
    """The id of an access key, a name that a program has chosen, or nobody. Who is not allowed
    to see all sees of a table with this column their own rows only: see captioning/access.py."""
    return mapped_column(String(64), default="", server_default=text("''"))


class Base(DeclarativeBase):
    # Named constraints, so that migrations can name what they change on every database.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Image(Base):
    """Verified, stored bytes: a normalised JPEG and a thumbnail.

    The row comes before the bytes. `stored_at` is empty until both are written and a job
    refers to them, so whatever dies in between leaves a row by which the sweeper finds and
    removes the bytes.
    """

    __tablename__ = "image"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    owner: Mapped[str] = _owner()
    filename: Mapped[str] = mapped_column(String(255), doc="as uploaded, for display only")
    sha256: Mapped[str] = mapped_column(String(64), doc="of the bytes as uploaded")
    width: Mapped[int] = mapped_column(doc="pixels, of the stored form")
    height: Mapped[int] = mapped_column(doc="pixels, of the stored form")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())
    stored_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index(
            "ix_image_pending",
            "created_at",
            postgresql_where=text("stored_at IS NULL"),
            sqlite_where=text("stored_at IS NULL"),
        ),
    )

    @property
    def key(self) -> str:
        return f"images/{self.id}.jpg"

    @property
    def thumbnail_key(self) -> str:
        return f"thumbnails/{self.id}.jpg"


class Batch(Base):
    """The jobs of one upload, and what was wrong with the files that became no job."""

    __tablename__ = "batch"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    owner: Mapped[str] = _owner()
    rejected: Mapped[list[dict[str, Any]]] = mapped_column(
        JSON, doc="[{filename, code, message}], in upload order"
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())


class Job(Base):
    """One request to caption one image. A queued row is the outbox: Celery only rings."""

    __tablename__ = "job"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    batch_id: Mapped[str | None] = mapped_column(ForeignKey("batch.id"))
    image_id: Mapped[str] = mapped_column(ForeignKey("image.id"))

    model: Mapped[str] = mapped_column(String(100))
    decoding: Mapped[str] = mapped_column(String(20))
    num_captions: Mapped[int]
    max_words: Mapped[int | None] = mapped_column(doc="of a caption; NULL is no limit")
    request_id: Mapped[str | None] = mapped_column(
        String(64), doc="of the HTTP request that made it: the logs of web and worker meet here"
    )

    asked: Mapped[str | None] = mapped_column(
        String(32), doc="digest of bytes, model and options: see captioning/twins.py"
    )

    webhook_url: Mapped[str | None] = mapped_column(
        Text, doc="where to say that it has ended; of a job in a batch, that the batch has"
    )

    owner: Mapped[str] = _owner()  # whose jobs share one turn, too
    priority: Mapped[int] = mapped_column(default=Priority.INTERACTIVE, server_default="0")
    place: Mapped[int] = mapped_column(
        BigInteger, default=0, server_default="0", doc="in the queue; see jobs.submit"
    )

    status: Mapped[str] = mapped_column(String(20), default=JobStatus.QUEUED)
    attempts: Mapped[int] = mapped_column(default=0, doc="claims so far, given-back ones aside")
    max_attempts: Mapped[int]
    available_at: Mapped[datetime] = mapped_column(
        UtcDateTime, default=db_now(), doc="not to be claimed before"
    )
    lease_token: Mapped[str | None] = mapped_column(Id, doc="fences late finishers")
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    error_code: Mapped[str | None] = mapped_column(String(50))
    error_message: Mapped[str | None] = mapped_column(Text)

    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime, doc="of the last claim")
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    model_revision: Mapped[str | None] = mapped_column(
        String(64), doc="of its captions, once there are any"
    )

    # A person's word, which no outcome overwrites: see captioning/editing.py.
    edited_text: Mapped[str | None] = mapped_column(Text, doc="in place of the model's")
    decorative: Mapped[bool] = mapped_column(
        default=False, server_default=false(), doc="the photograph wants an empty alt"
    )

    image: Mapped[Image] = relationship(lazy="joined", innerjoin=True)
    captions: Mapped[list[Caption]] = relationship(
        lazy="selectin", order_by="Caption.rank", cascade="all, delete-orphan"
    )

    __table_args__ = (
        CheckConstraint(
            f"status IN ({', '.join(repr(s.value) for s in JobStatus)})", name="status_known"
        ),
        CheckConstraint(
            "(status = 'running') = (lease_token IS NOT NULL)", name="running_means_leased"
        ),
        # Claiming reads only the head of the queue, however many jobs have finished.
        Index(
            "ix_job_queued_place",
            "model",
            "priority",
            "place",
            "id",
            postgresql_where=text("status = 'queued'"),
            sqlite_where=text("status = 'queued'"),
        ),
        Index(
            "ix_job_queued_owner",
            "owner",
            "model",
            "priority",
            "place",
            postgresql_where=text("status = 'queued' AND owner != ''"),
            sqlite_where=text("status = 'queued' AND owner != ''"),
        ),
        Index(
            "ix_job_running",
            "lease_expires_at",
            postgresql_where=text("status = 'running'"),
            sqlite_where=text("status = 'running'"),
        ),
        # A twin that runs, or that has been captioned: one is found however many there are.
        Index(
            "ix_job_running_asked",
            "asked",
            postgresql_where=text("status = 'running'"),
            sqlite_where=text("status = 'running'"),
        ),
        Index(
            "ix_job_answered",
            "asked",
            "model_revision",
            postgresql_where=text("status = 'succeeded' AND asked IS NOT NULL"),
            sqlite_where=text("status = 'succeeded' AND asked IS NOT NULL"),
        ),
        Index("ix_job_lease_token", "lease_token"),
        Index("ix_job_batch_id", "batch_id", "id"),
        Index("ix_job_image_id", "image_id"),
        Index("ix_job_status_id", "status", "id"),
        Index("ix_job_owner_id", "owner", "id"),
    )

    @property
    def text(self) -> str | None:
        """What is shown: somebody's edit if there is one, else the best candidate."""
        if self.edited_text is not None:
            return self.edited_text
        return self.captions[0].text if self.captions else None

    @property
    def alt(self) -> str | None:
        """What a page that shows the photograph has as its alt."""
        return "" if self.decorative else self.text


class Caption(Base):
    """One candidate text for a job; rank 0 is the one that is shown."""

    __tablename__ = "caption"

    job_id: Mapped[str] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(Text)
    mean_log_probability: Mapped[float] = mapped_column(doc="nats per token")
    model_revision: Mapped[str] = mapped_column(String(64))


class Worker(Base):
    """A worker process that has its models loaded. Rows of the dead are swept away."""

    __tablename__ = "worker"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(255), doc="pid@host, for people")
    models: Mapped[list[str]] = mapped_column(JSON)
    started_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())
    seen_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())


class Turn(Base):
    """Whose turn a periodic duty is: taken by a conditional UPDATE, so that of all workers
    one does it in each period."""

    __tablename__ = "turn"

    duty: Mapped[str] = mapped_column(String(50), primary_key=True)
    next_at: Mapped[datetime] = mapped_column(UtcDateTime)


class IdempotencyKey(Base):
    """What was made of a request that its sender may send again."""

    __tablename__ = "idempotency_key"

    key: Mapped[str] = mapped_column(String(255), primary_key=True, doc="the sender's choice")
    fingerprint: Mapped[str] = mapped_column(String(64), doc="of the whole request")
    made_id: Mapped[str] = mapped_column(Id, index=True, doc="of the job or the batch")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now(), index=True)


class WebhookDelivery(Base):
    """One message to one address: that a job or a batch has ended. Its id is the message's.

    Written in the transaction that ends the job, so that none is forgotten, or that makes the
    batch; what it says is read from the job's own row when it is sent.
    """

    __tablename__ = "webhook_delivery"

    id: Mapped[str] = mapped_column(Id, primary_key=True, default=new_id)
    owner: Mapped[str] = mapped_column(String(64), doc="of the job or batch")
    job_id: Mapped[str | None] = mapped_column(ForeignKey("job.id", ondelete="CASCADE"), index=True)
    batch_id: Mapped[str | None] = mapped_column(
        ForeignKey("batch.id", ondelete="CASCADE"), index=True
    )
    url: Mapped[str] = mapped_column(Text)
    host: Mapped[str] = mapped_column(String(300), doc="and port: what may be slow or away")
    status: Mapped[str] = mapped_column(String(20), default=DeliveryStatus.PENDING)
    attempts: Mapped[int] = mapped_column(default=0, doc="since it was made or redelivered")
    next_at: Mapped[datetime] = mapped_column(
        UtcDateTime, default=db_now(), doc="not before; while it is sent, when to take it up again"
    )
    log: Mapped[list[dict[str, Any]]] = mapped_column(
        JSON, default=list, doc="[{at, status_code, error, seconds}] of the last attempts"
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now(), index=True)

    __table_args__ = (
        CheckConstraint("(job_id IS NULL) != (batch_id IS NULL)", name="one_subject"),
        CheckConstraint(
            f"status IN ({', '.join(repr(s.value) for s in DeliveryStatus)})", name="status_known"
        ),
        Index(
            "ix_webhook_delivery_open",
            "next_at",
            postgresql_where=text("status IN ('pending', 'sending')"),
            sqlite_where=text("status IN ('pending', 'sending')"),
        ),
        Index("ix_webhook_delivery_owner_id", "owner", "id"),
    )


class WebhookSecret(Base):
    """What an owner's messages are signed with. Kept as it is: whoever signs must know it."""

    __tablename__ = "webhook_secret"

    owner: Mapped[str] = mapped_column(String(64), primary_key=True)
    secret: Mapped[str] = mapped_column(String(100))
    previous: Mapped[str | None] = mapped_column(String(100), doc="signs, too, for a day")
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())


class AccessKey(Base):
    """Lets its holder in. Kept when it is revoked: rows may belong to it."""

    __tablename__ = "access_key"

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    name: Mapped[str] = mapped_column(String(100), doc="for people; of those in force, unique")
    role: Mapped[str] = mapped_column(String(20))
    digest: Mapped[str] = mapped_column(String(64), unique=True, doc="of the secret")
    rate: Mapped[str | None] = mapped_column(
        String(50), doc="requests, as in CAPTIONING_RATE_LIMIT; None: as that says"
    )
    images_per_day: Mapped[int | None] = mapped_column(
        doc="None: as CAPTIONING_IMAGES_PER_DAY says"
    )
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=db_now())
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)

    __table_args__ = (
        Index(
            "ix_access_key_name_in_force",
            "name",
            unique=True,
            postgresql_where=text("revoked_at IS NULL"),
            sqlite_where=text("revoked_at IS NULL"),
        ),
    )


class SignIn(Base):
    """A browser in which somebody has shown a key."""

    __tablename__ = "sign_in"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True, doc="of the cookie's token")
    key_id: Mapped[str] = mapped_column(ForeignKey("access_key.id"), index=True)
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)


class Usage(Base):
    """What a key has handed in on one day (UTC). Deleting a job takes nothing off it."""

    __tablename__ = "usage"

    owner: Mapped[str] = mapped_column(String(64), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    images: Mapped[int]
