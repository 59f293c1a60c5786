"""The route from a name to a captioner, in processes of their own that take a server on loopback
for the hub: checkpoints are synthetic, of the true layout, and nothing else is put on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from clipcap.models import PUBLISHED
from tests.clipcap import authors
from tests.clipcap.hub_server import Hub, run_hub

pytestmark = pytest.mark.slow

PIECE = 10 * 1024 * 1024  # what huggingface_hub writes at once
LOCATE = """
import sys
from clipcap import ClipCapError
from clipcap.models import locate
try:
    print(locate(sys.argv[1]))
except ClipCapError as error:
    sys.exit(f"Error: {error}")
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """It holds what the authors published, GPT-2's tokenizer with it."""
    with run_hub() as hub:
        for name, published in PUBLISHED.items():
            folder = hub.repositories[published.repository] = tmp_path / "hub" / name
            folder.mkdir(parents=True)
            weights = authors.mlp(prefix_length=20) | authors.gpt2(masks=True)
            torch.save(weights, folder / published.file)
        hub.repositories["gpt2"] = tmp_path / "hub" / "gpt2"
        authors.build_tokenizer(hub.repositories["gpt2"])
        (hub.repositories["gpt2"] / "config.json").write_text('{"model_type": "gpt2"}')
        yield hub


class Machine:
    """A user's machine with empty caches, for which the hub is at `endpoint`."""

    def __init__(self, home: Path, endpoint: str) -> None:
        self.home = home
        self.endpoint = endpoint

    def run(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        caches = {"HF_HOME": str(self.home / "hf"), "XDG_CACHE_HOME": str(self.home / "cache")}
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            env={**os.environ, **caches, "HF_ENDPOINT": self.endpoint, **environment},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def locate(self, name: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("-c", LOCATE, name, **environment)


@pytest.fixture
def machine(tmp_path: Path, hub: Hub) -> Machine:
    return Machine(tmp_path / "home", hub.url)


def the_error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    return line


def test_a_download_that_broke_off_goes_on_where_it_stopped(hub: Hub, machine: Machine) -> None:
    hub.cut_after = PIECE + 200_000
    message = the_error(machine.locate("coco"))
    assert "coco_weights.pt" in message
    assert "goes on where it stopped" in message

    hub.cut_after = None
    done = machine.locate("coco")

    assert done.returncode == 0, done.stderr
    assert hub.ranges[-1] == f"bytes={PIECE}-"
    assert (Path(done.stdout.strip()) / "bundle.json").is_file()
    assert machine.locate("coco", HF_HUB_OFFLINE="1").stdout == done.stdout
