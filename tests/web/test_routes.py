"""Every route x every kind of caller x somebody else's object. The routes are taken from the
application: one that is added and not declared here fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from apiflask import APIFlask
from flask.testing import FlaskClient
from sqlalchemy import MetaData, select
from werkzeug.test import TestResponse

from captioning.models import Role
from captioning.queue import Queue
from captioning.settings import Settings
from tests import servers
from tests.factories import photo
from tests.web.conftest import ReadingClient
from tests.web.keys import bearer, make_key, revoke, sign_in
from tests.web.outcomes import caption
from tests.web.sending import form, part
from web import create_app
from web.problems import FOR_PROGRAMS

Route = tuple[str, str]
Sent = dict[str, Any]

FILENAME, CAPTION = "annas-secret-place.jpg", "A wall that is nobody's business."
WEBHOOK = "https://receiver.example/annas-hook"
SECRETS = (FILENAME, CAPTION, WEBHOOK)


def image(field: str) -> Callable[[], Sent]:
    return lambda: form(field, [part(photo())])


def nothing() -> Sent:
    return {}


def edit() -> Sent:
    return {"json": {"caption": CAPTION}}


def edit_on_page() -> Sent:
    return {"data": {"caption": CAPTION}}


def everything() -> Sent:
    return {"query_string": {"all": "yes", "show": "all"}}


EVERYBODY: dict[Route, Callable[[], Sent]] = {
    ("GET", "/static/<path:filename>"): nothing,
    ("GET", "/healthz"): nothing,
    ("GET", "/readyz"): nothing,
    ("GET", "/api/openapi.json"): nothing,
    ("GET", "/api/docs"): nothing,
    ("GET", "/sign-in"): nothing,
    ("POST", "/sign-in"): nothing,
}
"""Need no key, and tell nothing of what was handed in. With what to send."""

HOLDERS: dict[Route, Callable[[], Sent]] = {
    ("GET", "/"): nothing,
    ("POST", "/"): image("images"),
    ("GET", "/samples/<name>.jpg"): nothing,
    ("POST", "/samples/<name>"): nothing,
    ("GET", "/gallery"): nothing,
    ("GET", "/gallery/delete"): everything,
    ("POST", "/gallery/delete"): everything,
    ("POST", "/sign-out"): nothing,
    ("GET", "/api/v1/jobs"): nothing,
    ("POST", "/api/v1/jobs"): image("image"),
    ("POST", "/api/v1/batches"): image("images"),
    ("GET", "/api/v1/models"): nothing,
    ("GET", "/api/v1/webhooks/deliveries"): nothing,
    ("GET", "/api/v1/webhooks/secret"): nothing,
    ("POST", "/api/v1/webhooks/secret"): nothing,
    ("POST", "/model/predict"): nothing,
    ("GET", "/model/metadata"): nothing,
}
"""Need a key, and show what belongs to it."""

OWNERS: dict[Route, Callable[[], Sent]] = {
    ("GET", "/images/<image_id>.jpg"): nothing,
    ("GET", "/thumbnails/<image_id>.jpg"): nothing,
    ("GET", "/jobs/<job_id>"): nothing,
    ("GET", "/jobs/<job_id>/outcome"): nothing,
    ("POST", "/jobs/<job_id>/cancel"): nothing,
    ("POST", "/jobs/<job_id>/retry"): nothing,
    ("POST", "/jobs/<job_id>/edit"): edit_on_page,
    ("GET", "/jobs/<job_id>/delete"): nothing,
    ("POST", "/jobs/<job_id>/delete"): nothing,
    ("GET", "/batches/<batch_id>"): nothing,
    ("POST", "/batches/<batch_id>/progress"): nothing,
    ("POST", "/batches/<batch_id>/cancel"): nothing,
    ("POST", "/batches/<batch_id>/retry"): nothing,
    ("GET", "/batches/<batch_id>/delete"): nothing,
    ("POST", "/batches/<batch_id>/delete"): nothing,
    ("GET", "/api/v1/jobs/<job_id>"): nothing,
    ("PATCH", "/api/v1/jobs/<job_id>"): edit,
    ("DELETE", "/api/v1/jobs/<job_id>"): nothing,
    ("POST", "/api/v1/jobs/<job_id>/cancel"): nothing,
    ("POST", "/api/v1/jobs/<job_id>/retry"): nothing,
    ("GET", "/api/v1/batches/<batch_id>"): nothing,
    ("DELETE", "/api/v1/batches/<batch_id>"): nothing,
    ("POST", "/api/v1/batches/<batch_id>/cancel"): nothing,
    ("POST", "/api/v1/batches/<batch_id>/retry"): nothing,
    ("GET", "/api/v1/batches/<batch_id>/export.csv"): nothing,
    ("GET", "/api/v1/batches/<batch_id>/export.jsonl"): nothing,
    ("GET", "/api/v1/batches/<batch_id>/export.zip"): nothing,
    ("GET", "/api/v1/webhooks/deliveries/<delivery_id>"): nothing,
    ("POST", "/api/v1/webhooks/deliveries/<delivery_id>/redeliver"): nothing,
}
"""Are about one thing: for its owner and for admins; for others it is not there."""

LEAVE_NOTHING: set[Route] = {
    ("POST", "/jobs/<job_id>/delete"),
    ("POST", "/batches/<batch_id>/delete"),
    ("DELETE", "/api/v1/jobs/<job_id>"),
    ("DELETE", "/api/v1/batches/<batch_id>"),
}
"""Of those, the ones after which the thing is gone."""

LISTS = [
    "/gallery?show=all",
    "/gallery?show=all&q=business",
    "/gallery/delete?all=yes&show=all",
    "/gallery/delete?job={job_id}",
    "/api/v1/jobs",
    "/api/v1/jobs?batch={batch_id}",
    "/api/v1/jobs?text=business",
    "/api/v1/webhooks/deliveries",
    "/api/v1/webhooks/deliveries?batch={batch_id}",
]
"""Lead to other people's things if anything does."""


@dataclass
class World:
    """A service that asks for keys, with something of anna's in it."""

    app: APIFlask
    keys: dict[str, str]
    named: dict[str, str]
    """What the parameters of routes are called: anna's things."""

    @property
    def queue(self) -> Queue:
        found: Queue = self.app.extensions["captioning"]
        return found

    def program(self, key: str) -> FlaskClient:
        client = self.app.test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = bearer(key)["Authorization"]
        return client

    def browser(self, name: str) -> FlaskClient:
        return sign_in(self.app.test_client(), self.keys[name])

    def send(
        self,
        client: FlaskClient,
        route: Route,
        sent: Callable[[], Sent],
        named: dict[str, str] | None = None,
    ) -> TestResponse:
        method, rule = route
        for found in self.app.url_map.iter_rules():
            if found.rule == rule and method in (found.methods or ()):
                values = {name: (named or self.named)[name] for name in found.arguments}
                with self.app.test_request_context():
                    path = self.app.url_for(found.endpoint, **values)
                return client.open(path, method=method, **sent())
        raise AssertionError(f"there is no {route}")

    def rows(self) -> dict[str, list[Any]]:
        """All that is in the tables of what people hand in."""
        with self.queue.database.engine.connect() as connection:
            tables = MetaData()
            tables.reflect(connection)
            return {
                name: [tuple(row) for row in connection.execute(select(table))]
                for name, table in tables.tables.items()
                if "owner" in table.columns and name != "webhook_secret"
            }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("routes")
    with servers.migrated_database("sqlite", folder) as url:
        app = create_app(Settings(data_dir=folder, database_url=url, access="keys"))
        app.test_client_class = ReadingClient
        queue = app.extensions["captioning"]
        names = ("anna", "bert", "revoked", "boss")
        keys = {name: make_key(queue, name, Role.USER) for name in names[:3]}
        keys["boss"] = make_key(queue, "boss", Role.ADMIN)
        world = World(app, keys, {"filename": "site.css", "name": "cat"})
        world.named |= hand_in(world)
        yield world
        queue.close()


def hand_in(world: World) -> dict[str, str]:
    """A batch of anna's that has been captioned, and a message about it."""
    anna = world.program(world.keys["anna"])
    sent = form("images", [part(photo(), FILENAME)], webhook_url=WEBHOOK)
    batch = anna.post("/api/v1/batches", **sent).json
    (job,) = batch["jobs"]
    caption(world.queue, CAPTION)
    (delivery,) = anna.get(f"/api/v1/webhooks/deliveries?batch={batch['id']}").json["deliveries"]
    image_id = job["image"]["url"].rpartition("/")[2].removesuffix(".jpg")
    ids = {"batch_id": batch["id"], "job_id": job["id"], "image_id": image_id}
    return ids | {"delivery_id": delivery["id"]}


@pytest.fixture(scope="module")
def strangers(world: World) -> list[FlaskClient]:
    """Nobody, wrong keys, a key that has been revoked, and a browser that had shown it."""
    had_shown = world.browser("revoked")
    revoke(world.queue, "revoked")
    wrong = (world.keys["revoked"], "cap_wrong", "")
    return [world.app.test_client(), had_shown, *map(world.program, wrong)]


@pytest.fixture(scope="module")
def berts(world: World) -> list[FlaskClient]:
    return [world.program(world.keys["bert"]), world.browser("bert")]


def tells_nothing(answer: TestResponse) -> bool:
    told = answer.text if "image" not in answer.mimetype else ""
    return not any(secret in told + str(answer.headers) for secret in SECRETS)


def told(route: Route) -> str:
    return " ".join(route)


def test_every_route_is_declared(world: World) -> None:
    """A new route belongs in one of the three tables, and in web/access.py if it is to be open
    to everybody."""
    routes = {
        (method, rule.rule)
        for rule in world.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    declared = [*EVERYBODY, *HOLDERS, *OWNERS]
    assert routes == set(declared)
    assert len(declared) == len(set(declared))


def test_there_is_something_to_find(world: World) -> None:
    shown = world.browser("anna").get(f"/batches/{world.named['batch_id']}").text
    assert FILENAME in shown
    with world.queue.database.read() as session:
        assert session.connection().exec_driver_sql("SELECT * FROM webhook_delivery").all()


@pytest.mark.parametrize("route", EVERYBODY, ids=told)
def test_who_shows_no_key_gets_what_is_for_everybody(
    world: World, strangers: list[FlaskClient], route: Route
) -> None:
    for client in strangers:
        answer = world.send(client, route, EVERYBODY[route])
        refusal = route == ("POST", "/sign-in")  # without a key in the form
        assert (answer.status_code == 401) == refusal
        assert not answer.location
        assert tells_nothing(answer)


@pytest.mark.parametrize("route", [*HOLDERS, *OWNERS], ids=told)
def test_who_shows_no_key_in_force_gets_nothing_else(
    world: World, strangers: list[FlaskClient], route: Route
) -> None:
    before = world.rows()
    sent = {**HOLDERS, **OWNERS}[route]
    for client in strangers:
        answer = world.send(client, route, sent)
        program = "HTTP_AUTHORIZATION" in client.environ_base
        if route[0] == "GET" and not program and not route[1].startswith(FOR_PROGRAMS):
            assert answer.status_code == 303
            assert answer.location.startswith("/sign-in?after=")
        else:
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert tells_nothing(answer)
    assert world.rows() == before


@pytest.mark.parametrize("route", OWNERS, ids=told)
def test_what_is_somebody_elses_is_not_there(
    world: World, berts: list[FlaskClient], route: Route
) -> None:
    before = world.rows()
    for client in berts:
        answer = world.send(client, route, OWNERS[route])
        assert answer.status_code == 404
        assert tells_nothing(answer)
    assert world.rows() == before


@pytest.mark.parametrize("route", OWNERS, ids=told)
def test_what_is_ones_own_is_there_and_for_admins_too(world: World, route: Route) -> None:
    for name in ("anna", "boss"):
        for client in (world.program(world.keys[name]), world.browser(name)):
            named = hand_in(world) if route in LEAVE_NOTHING else None
            answer = world.send(client, route, OWNERS[route], named)
            assert answer.status_code in (200, 202, 204, 303, 409)
            assert "/sign-in" not in (answer.location or "")


@pytest.mark.parametrize("route", HOLDERS, ids=told)
def test_every_holder_of_a_key_gets_in_and_sees_nothing_of_others(
    world: World, route: Route
) -> None:
    for client in (world.program(world.keys["bert"]), world.browser("bert")):
        answer = world.send(client, route, HOLDERS[route])
        bare_form = route == ("POST", "/model/predict")
        assert answer.status_code == 400 if bare_form else answer.status_code in (200, 202, 303)
        assert "/sign-in" not in (answer.location or "") or route == ("POST", "/sign-out")
        assert tells_nothing(answer)


def test_nobody_deletes_what_is_somebody_elses(world: World) -> None:
    bert = world.program(world.keys["bert"])
    for sent in ({"job": world.named["job_id"]}, {"all": "yes", "show": "all"}):
        assert bert.post("/gallery/delete", data=sent).status_code == 303
    after = world.rows()
    for table in ("job", "batch", "image"):
        assert world.named[f"{table}_id"] in str(after[table])


@pytest.mark.parametrize("path", LISTS)
def test_lists_show_what_is_ones_own(world: World, path: str) -> None:
    path = path.format(**world.named)
    seen = {
        name: not tells_nothing(world.program(world.keys[name]).get(path))
        for name in ("anna", "bert", "boss")
    }
    assert seen == {"anna": True, "bert": False, "boss": True}


def test_each_has_a_signing_secret_of_their_own(world: World) -> None:
    paths = [world.program(world.keys[name]) for name in ("anna", "bert", "boss")]
    secrets = {client.get("/api/v1/webhooks/secret").json["secret"] for client in paths}
    assert len(secrets) == 3


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "TRACE"])
def test_other_methods_are_no_way_around(world: World, method: str) -> None:
    for path in (f"/api/v1/jobs/{world.named['job_id']}", "/model/predict"):
        assert world.app.test_client().open(path, method=method).status_code == 401
