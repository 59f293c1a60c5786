"""docs/api.md says what the service does."""

from __future__ import annotations

import re
from pathlib import Path

from flask.testing import FlaskClient

from captioning import messages, webhooks
from captioning.forecast import MOST_COUNTED
from web import ibm_max
from web.api.schemas import JobForm

GUIDE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


def test_every_field_of_the_form_is_in_the_table() -> None:
    listed = re.findall(r"^\| `(\w+)` \|", GUIDE, flags=re.MULTILINE)
    assert set(JobForm.model_fields) <= set(listed)


def test_every_route_that_it_names_is_there(client: FlaskClient) -> None:
    described = client.get("/api/openapi.json").json["paths"]
    described = {re.sub(r"{\w+}", "{id}", path): methods for path, methods in described.items()}
    named = re.findall(r"`(GET|POST|PATCH|DELETE) (/[\w/{}.]+)`", GUIDE)
    assert len(named) > 10
    for method, path in named:
        assert method.lower() in described[path]


def test_the_waits_are_those_of_the_code() -> None:
    units = {"s": 1, "min": 60, "h": 3600}
    (sentence,) = re.findall(r"tried again after (.+), then given up", GUIDE)
    waits = [int(number) * units[unit] for number, unit in re.findall(r"(\d+) (\w+)", sentence)]
    assert tuple(waits) == webhooks.RETRY_DELAYS_S
    assert messages.TIMEOUT_S == 10
    assert "Answer 2xx within ten seconds" in GUIDE
    assert ibm_max.TIMEOUT_S == 55
    assert "up to 55 seconds" in GUIDE


def test_how_far_a_place_in_the_queue_is_counted_is_that_of_the_code() -> None:
    assert f"{MOST_COUNTED + 1} that or any place further back" in GUIDE
