"""What a client does when the way to the service is bad: scripted answers, no real pauses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest

from captioning import AsyncClient, Client
from captioning.client import RequestRefused, ServiceUnreachable
from captioning.client.exchange import LAST_DELAY_S, RETRY_AFTER_MAX_S
from captioning.errors import QuotaExceeded, Unavailable
from tests.factories import photo

JOB = {
    "id": "0" * 32,
    "status": "queued",
    "model": "bundled",
    "decoding": "beam",
    "num_captions": 1,
    "max_words": None,
    "caption": None,
    "edited": False,
    "decorative": False,
    "alt": None,
    "captions": [],
    "error": None,
    "image": {"url": "/", "thumbnail_url": "/", "filename": "a.jpg", "width": 1, "height": 1},
    "batch_id": None,
    "attempts": 0,
    "created_at": "2026-01-01T00:00:00Z",
    "started_at": None,
    "finished_at": None,
    "something_new": 1,
}
Answer = httpx.Response | Exception


def accepted() -> httpx.Response:
    return httpx.Response(202, json=JOB)


def problem(status: int, code: str, **headers: str) -> httpx.Response:
    body = {"code": code, "detail": "Not now.", "title": "", "status": status, "type": ""}
    return httpx.Response(status, content=json.dumps(body), headers=headers)


class Script:
    """Answers requests one after the other, and keeps what came."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.answers = iter(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was slept, in place of sleeping."""
    slept: list[float] = []
    monkeypatch.setattr("time.sleep", slept.append)
    return slept


def client_of(script: Callable[[httpx.Request], httpx.Response], retries: int = 5) -> Client:
    return Client("http://service", retries=retries, transport=httpx.MockTransport(script))


def test_an_upload_is_sent_again_under_the_same_key(pauses: list[float]) -> None:
    lost = httpx.ReadTimeout("lost")
    script = Script([lost, httpx.ConnectError("away"), accepted(), accepted()])
    with client_of(script) as client:
        client.submit(photo())
        client.submit(photo())
    keys = [request.headers["Idempotency-Key"] for request in script.requests]
    assert keys[0] == keys[1] == keys[2] != keys[3]
    bodies = [request.read() for request in script.requests[:3]]
    assert all(photo() in body for body in bodies)
    assert len(pauses) == 2


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_is_refused_for_now_is_tried_again(pauses: list[float], status: int) -> None:
    with client_of(Script([problem(status, "unavailable"), accepted()])) as client:
        assert client.submit(photo()).id == JOB["id"]
    assert len(pauses) == 1


def test_the_service_says_how_late(pauses: list[float]) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    values = ["7", "86400", date]
    refusals = [problem(503, "queue_full", **{"Retry-After": value}) for value in values]
    with client_of(Script([*refusals, accepted()])) as client:
        client.submit(photo())
    assert pauses[:2] == [7, RETRY_AFTER_MAX_S]
    assert 20 < pauses[2] <= 30


def test_the_next_day_is_not_waited_for(pauses: list[float]) -> None:
    refusal = problem(429, "quota_exceeded", **{"Retry-After": "40000"})
    with client_of(Script([refusal])) as client, pytest.raises(QuotaExceeded):
        client.submit(photo())
    assert pauses == []


def test_pauses_grow_to_a_limit(pauses: list[float]) -> None:
    nonsense = [problem(503, "unavailable", **{"Retry-After": "soon"}) for _ in range(9)]
    with client_of(Script([*nonsense, accepted()]), retries=9) as client:
        client.submit(photo())
    assert pauses[0] <= 0.5
    assert LAST_DELAY_S / 2 <= pauses[-1] <= LAST_DELAY_S


@pytest.mark.usefixtures("pauses")
def test_attempts_have_an_end() -> None:
    script = Script([problem(503, "unavailable")] * 3)
    with client_of(script, retries=2) as client, pytest.raises(Unavailable, match=r"Not now\."):
        client.submit(photo())
    assert len(script.requests) == 3
    with (
        client_of(Script([httpx.ConnectError("away")]), retries=0) as client,
        pytest.raises(ServiceUnreachable, match="away"),
    ):
        client.job(str(JOB["id"]))


@pytest.mark.parametrize(
    "answer",
    [
        problem(418, "teapot"),
        httpx.Response(500, text="<h1>oops</h1>"),
        httpx.Response(400, json=[1]),
        httpx.Response(400, json={"message": "of a proxy"}),
    ],
)
def test_what_has_no_name_here_is_refused_with_its_status(
    pauses: list[float], answer: httpx.Response
) -> None:
    with client_of(Script([answer])) as client, pytest.raises(RequestRefused) as caught:
        client.submit(photo())
    assert caught.value.status == answer.status_code
    assert pauses == []


def test_a_key_is_a_bearer_token() -> None:
    script = Script([accepted()])
    with Client("http://service", key="s3cret", transport=httpx.MockTransport(script)) as client:
        client.submit(photo())
    assert script.requests[0].headers["Authorization"] == "Bearer s3cret"


def test_where_there_is_no_place_to_wait_it_asks_again_later(pauses: list[float]) -> None:
    done = httpx.Response(200, json={**JOB, "status": "cancelled"})
    script = Script([httpx.Response(200, json=JOB), done])
    with client_of(script) as client:
        assert client.wait(str(JOB["id"])).status == "cancelled"
    assert pauses == [1]
    assert [request.url.params["wait"][:2] for request in script.requests] == ["20", "20"]


def held_back(request: httpx.Request) -> httpx.Response:
    """A service that has no caption within the time that it is asked to wait for one."""
    patience = request.extensions["timeout"]
    assert patience["connect"] == 3
    held_s = float(request.url.params.get("wait", 0))
    if patience["read"] < held_s + 3:
        raise httpx.ReadTimeout("lost")
    return httpx.Response(200, json={**JOB, "status": "cancelled"})


def test_an_answer_that_the_service_holds_back_has_time_beyond_that_of_all_others() -> None:
    async def use() -> None:
        way = httpx.MockTransport(held_back)
        async with AsyncClient("http://x", timeout_s=3, retries=0, transport=way) as client:
            assert (await client.wait(str(JOB["id"]), timeout_s=8)).status == "cancelled"

    way = httpx.MockTransport(held_back)
    with Client("http://x", timeout_s=3, retries=0, transport=way) as client:
        assert client.wait(str(JOB["id"]), timeout_s=8).status == "cancelled"
    asyncio.run(use())


def test_a_tag_that_a_proxy_has_weakened_is_as_the_service_knows_it() -> None:
    read, edited = httpx.Response(200, json=JOB, headers={"ETag": 'W/"t"'}), accepted()
    script = Script([accepted(), read, edited])
    with client_of(script) as client:
        client.edit(client.submit(photo()), caption="A cat.")
    assert script.requests[-1].headers["If-Match"] == '"t"'


def test_asyncio_sleeps_and_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def use() -> None:
        script = Script([problem(503, "unavailable", **{"Retry-After": "7"}), accepted()])
        async with AsyncClient("http://x", transport=httpx.MockTransport(script)) as client:
            await client.submit(photo())

    monkeypatch.setattr(asyncio, "sleep", sleep)
    asyncio.run(use())
    assert slept == [7]
