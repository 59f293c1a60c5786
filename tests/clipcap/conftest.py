"""One tiny bundle for all tests here. Copy it before changing it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from clipcap import Captioner
from tests.tiny_bundle import build_tiny_bundle


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny matrices are slower on two threads, and much slower when another process is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="session")
def captioner(tiny_bundle: Path) -> Captioner:
    return Captioner.load(tiny_bundle)


@pytest.fixture
def copy_of(tiny_bundle: Path, tmp_path: Path) -> Callable[[], Path]:
    """A bundle of the test's own, to be spoilt."""

    def copy() -> Path:
        return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))

    return copy
