"""The route from a name to a captioner, in processes of their own that take a server on loopback
for the hub: checkpoints are synthetic, of the true layout, and nothing else is put on."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

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


def serve_openai_clip(hub: Hub, folder: Path) -> None:
    """OpenAI's ViT-B/32 in its true size, its weights random."""
    folder.mkdir()
    with torch.device("meta"):
        shapes = open_clip.CLIP(**open_clip.get_model_config("ViT-B-32-quickgelu")).state_dict()
    weights = {key: torch.randn(w.shape, dtype=torch.half) * 0.02 for key, w in shapes.items()}
    save_file(weights, folder / "open_clip_model.safetensors")
    hub.repositories["timm/vit_base_patch32_clip_224.openai"] = folder


def test_coco_is_fetched_converted_and_captions_then_without_a_network(
    hub: Hub, machine: Machine, tmp_path: Path
) -> None:
    serve_openai_clip(hub, tmp_path / "clip")
    Image.new("RGB", (50, 40), "red").save(tmp_path / "red.png")
    caption = ("-m", "clipcap", "caption", "--model", "coco", tmp_path / "red.png")

    first = machine.run(*caption)
    assert first.returncode == 0, first.stderr
    hub.repositories.clear()
    again = machine.run(*caption, HF_HUB_OFFLINE="1")

    assert again.returncode == 0, again.stderr
    assert "red.png" in first.stdout
    assert again.stdout == first.stdout


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


def test_what_was_damaged_on_its_way_is_removed_and_fetched_again(
    hub: Hub, machine: Machine
) -> None:
    hub.spoil = True
    assert "conceptual_weights.pt: damaged" in the_error(machine.locate("conceptual"))
    hub.spoil = False
    assert machine.locate("conceptual").returncode == 0


def test_a_wrong_file_on_the_hub_is_refused(hub: Hub, machine: Machine) -> None:
    published = PUBLISHED["coco"]
    torch.save({"epoch": 3}, hub.repositories[published.repository] / published.file)
    assert "'epoch' is a int, not a weight" in the_error(machine.locate("coco"))
    (hub.repositories[published.repository] / published.file).unlink()
    assert "has no coco_weights.pt" in the_error(machine.locate("coco"))


@pytest.mark.parametrize(
    "environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://[::1]:9"}]
)
def test_without_a_network_it_says_so(machine: Machine, environment: dict[str, str]) -> None:
    assert "the hub cannot be reached" in the_error(machine.locate("coco", **environment))


@pytest.mark.parametrize("kind", ["tiny_bundle", "expecting_bundle"])
def test_a_bundle_on_the_hub_loads_by_its_name(
    hub: Hub, machine: Machine, kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    bundle: Path = request.getfixturevalue(kind)
    hub.repositories["me/tiny"] = Path(shutil.copytree(bundle, tmp_path / "hub" / "tiny"))
    (hub.repositories["me/tiny"] / "training.pt").write_bytes(b"never fetched")
    Image.new("RGB", (20, 20), "red").save(tmp_path / "red.png")

    caption = ("-m", "clipcap", "caption", "--model", "me/tiny", tmp_path / "red.png")
    done = machine.run(*caption)

    assert done.returncode == 0, done.stderr
    assert "red" in done.stdout.split("\t")[1]
    assert machine.run(*caption, HF_HUB_OFFLINE="1").stdout == done.stdout
    assert "the hub has no me/none" in the_error(machine.locate("me/none"))
    published = PUBLISHED["coco"].repository
    assert f"{published} on the hub has no bundle.json" in the_error(machine.locate(published))
