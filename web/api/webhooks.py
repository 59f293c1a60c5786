"""What was sent to whom, and whether it arrived; the secret that says it was us."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from apiflask import APIBlueprint
from flask import url_for
from pydantic import BaseModel, ConfigDict, Field

from captioning import webhook_secrets, webhooks
from captioning.models import DeliveryStatus, WebhookDelivery
from web import cursors
from web.current import caller, queue

NOT_KEPT = {"Cache-Control": "no-store"}

bp = APIBlueprint("webhooks", __name__, tag="Webhooks")


class DeliveriesQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    status: DeliveryStatus | None = None
    job: str | None = None
    batch: str | None = None
    limit: int = Field(20, ge=1, le=100)
    cursor: str | None = None


class AttemptBody(BaseModel):
    at: datetime
    status_code: int | None = Field(description="Of the answer, where there was one.")
    error: str | None
    seconds: float


class DeliveryBody(BaseModel):
    id: str = Field(description="The `webhook-id` of the message.")
    job_id: str | None
    batch_id: str | None
    url: str
    status: DeliveryStatus
    attempts: list[AttemptBody] = Field(description="The last of them, oldest first.")
    next_at: datetime | None = Field(description="Not before then, once what it says has ended.")
    created_at: datetime
    links: dict[str, str]


class DeliveriesBody(BaseModel):
    deliveries: list[DeliveryBody]
    next_cursor: str | None
    next: str | None = Field(description="Where the next page is.")


class SecretBody(BaseModel):
    secret: str = Field(description="As Standard Webhooks libraries take it.")


@bp.get("/webhooks/deliveries")
@bp.input(DeliveriesQuery, location="query", arg_name="query")
@bp.output(DeliveriesBody)
@bp.doc(responses=[503])
def index(query: DeliveriesQuery) -> DeliveriesBody:
    """List messages and what became of them, newest first."""
    with queue().database.read() as session:
        found = webhooks.list_deliveries(
            session,
            limit=query.limit + 1,
            before=cursors.decode(query.cursor) if query.cursor else None,
            status=query.status,
            job_id=query.job,
            batch_id=query.batch,
        )
    shown = found[: query.limit]
    cursor = cursors.encode(shown[-1].id) if len(found) > len(shown) else None
    parameters = {**query.model_dump(mode="json", exclude_none=True), "cursor": cursor}
    return DeliveriesBody(
        deliveries=[_body(delivery) for delivery in shown],
        next_cursor=cursor,
        next=url_for("webhooks.index", **parameters) if cursor else None,
    )


@bp.get("/webhooks/deliveries/<delivery_id>")
@bp.output(DeliveryBody)
@bp.doc(responses=[404, 503])
def show(delivery_id: str) -> DeliveryBody:
    """Read what became of a message."""
    with queue().database.read() as session:
        return _body(webhooks.get_delivery(session, delivery_id))


@bp.post("/webhooks/deliveries/<delivery_id>/redeliver")
@bp.output(DeliveryBody, status_code=202)
@bp.doc(responses=[404, 409, 503])
def redeliver(delivery_id: str) -> tuple[DeliveryBody, int, dict[str, str]]:
    """Send a message again, under the same `webhook-id`."""
    with queue().database.write() as session:
        webhooks.redeliver(session, delivery_id)
        body = _body(webhooks.get_delivery(session, delivery_id))
    return body, 202, {"Location": body.links["self"]}


@bp.get("/webhooks/secret")
@bp.output(SecretBody)
@bp.doc(responses=[503])
def secret() -> tuple[SecretBody, int, dict[str, str]]:
    """Read the secret that your messages are signed with."""
    with queue().database.write() as session:  # it is made when it is first asked for
        body = SecretBody(secret=webhook_secrets.secret_of(session, _owner()))
    return body, 200, NOT_KEPT


@bp.post("/webhooks/secret")
@bp.output(SecretBody)
@bp.doc(responses=[503])
def change_secret() -> tuple[SecretBody, int, dict[str, str]]:
    """Get a new secret. The one before signs, too, for another 24 hours, within which only the
    new one is replaced."""
    with queue().database.write() as session:
        body = SecretBody(secret=webhook_secrets.change_secret(session, _owner()))
    return body, 200, NOT_KEPT


def _owner() -> str:
    return caller().owner or ""


def _body(delivery: WebhookDelivery) -> DeliveryBody:
    log: list[dict[str, Any]] = delivery.log
    return DeliveryBody(
        id=delivery.id,
        job_id=delivery.job_id,
        batch_id=delivery.batch_id,
        url=delivery.url,
        status=DeliveryStatus(delivery.status),
        attempts=[AttemptBody(**attempt) for attempt in log],
        next_at=delivery.next_at if delivery.status in webhooks.OPEN else None,
        created_at=delivery.created_at,
        links={"self": url_for("webhooks.show", delivery_id=delivery.id)},
    )
