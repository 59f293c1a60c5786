"""The tiny captioner, and copies of its bundle to be spoilt."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from clipcap import Captioner


@pytest.fixture(scope="session")
def captioner(tiny_bundle: Path) -> Captioner:
    return Captioner.load(tiny_bundle)


@pytest.fixture
def copy_of(tiny_bundle: Path, tmp_path: Path) -> Callable[[], Path]:
    """A bundle of the test's own, to be spoilt."""

    def copy() -> Path:
        return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))

    return copy
