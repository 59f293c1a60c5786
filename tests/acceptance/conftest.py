"""The service with the tiny model: one that is only used, and fresh ones to be mistreated."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.service import Service
from web import samples

MakeService = Callable[..., Service]


@pytest.fixture(scope="session")
def photographs() -> dict[str, bytes]:
    """The sample photographs by file name."""
    return {f"{name}.jpg": samples.read(name) for name in samples.SAMPLES}


@pytest.fixture(scope="session")
def running(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("service"), f"tiny={tiny_bundle}")
    try:
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture
def service(running: Service) -> Service:
    """A running service, shared by tests that leave it running."""
    assert running.is_running, running.said
    return running


@pytest.fixture
def make_service(tiny_bundle: Path, tmp_path: Path) -> Iterator[MakeService]:
    """Makes a service of this test's own."""
    services: list[Service] = []

    def make(models: str = f"tiny={tiny_bundle}", **settings: Any) -> Service:
        service = Service(tmp_path, models, **settings)
        services.append(service)
        return service

    yield make
    for service in services:
        service.close()
