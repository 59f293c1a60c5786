"""Who asks, as far as it is said by somebody who is believed."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from flask import Flask, request
from flask.testing import FlaskClient

from web.proxies import TrustedProxies

TRUSTED = tuple(map(ip_network, ("127.0.0.1/32", "10.0.0.0/8", "fd00::/8")))


@pytest.fixture
def client() -> FlaskClient:
    app = Flask(__name__)
    app.wsgi_app = TrustedProxies(app.wsgi_app, TRUSTED)  # type: ignore[method-assign]

    @app.get("/")
    def who() -> str:
        return f"{request.remote_addr} {request.scheme} {request.host}"

    return app.test_client()


def seen(client: FlaskClient, peer: str, **headers: str) -> str:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.get("/", environ_base={"REMOTE_ADDR": peer}, headers=sent).text


@pytest.mark.parametrize("peer", ["192.0.2.7", "::1", "127.0.0.2", "", "fe80::1%eth0"])
def test_a_peer_that_is_not_named_is_not_believed(client: FlaskClient, peer: str) -> None:
    told = seen(client, peer, X_Forwarded_For="198.51.100.1", X_Forwarded_Proto="https")
    assert told.split() == [*([peer] if peer else []), "http", "localhost"]


@pytest.mark.parametrize("peer", ["127.0.0.1", "::ffff:127.0.0.1", "10.1.2.3", "fd00::1"])
def test_a_proxy_that_is_named_is(client: FlaskClient, peer: str) -> None:
    told = seen(client, peer, X_Forwarded_For="198.51.100.1", X_Forwarded_Proto="https")
    assert told == "198.51.100.1 https localhost"


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("198.51.100.1, 10.0.0.9", "198.51.100.1"),
        ("1.1.1.1, 198.51.100.1", "198.51.100.1"),  # the first may be invented
        ("1.1.1.1, 10.0.0.9, 198.51.100.1, 10.0.0.8", "198.51.100.1"),
        ("10.0.0.9", "10.0.0.9"),
        ("unknown", "127.0.0.1"),
        ("1.1.1.1, unknown", "127.0.0.1"),
        ("198.51.100.1:4711", "127.0.0.1"),
        ("", "127.0.0.1"),
        (",,", "127.0.0.1"),
        (" 2001:db8::1 ", "2001:db8::1"),
    ],
)
def test_of_several_the_last_that_is_no_proxy_asks(
    client: FlaskClient, forwarded: str, address: str
) -> None:
    assert seen(client, "127.0.0.1", X_Forwarded_For=forwarded) == f"{address} http localhost"


@pytest.mark.parametrize("scheme", ["ftp", "https, ", "https,http", "javascript"])
def test_of_several_schemes_the_last_counts_if_it_is_one(client: FlaskClient, scheme: str) -> None:
    assert " http " in seen(client, "127.0.0.1", X_Forwarded_Proto=scheme)


def test_other_headers_of_proxies_are_not_read(client: FlaskClient) -> None:
    told = seen(
        client,
        "127.0.0.1",
        X_Forwarded_Host="evil.example",
        X_Forwarded_Prefix="/x",
        X_Real_IP="198.51.100.1",
        Forwarded="for=198.51.100.1",
    )
    assert told == "127.0.0.1 http localhost"
