"""docs/training.md does not lie: its commands are run in its order, on a tiny set."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

from clipcap import Captioner
from clipcap.training.config import TrainingConfig

pytestmark = pytest.mark.slow

GUIDE = (Path(__file__).parents[2] / "docs" / "training.md").read_text()


def build_photographs(folder: Path) -> None:
    """A `train` and a `dev` folder, as part 3 of the guide advises."""
    for split, count in (("train", 12), ("dev", 3)):
        (folder / split).mkdir(parents=True)
        rows = []
        for i in range(count):
            colour = ("red", "green", "blue")[i % 3]
            name = f"{i:04d}.jpg"
            offset = i + 30 * (split == "dev")
            Image.new("RGB", (64 + offset, 64), colour).save(folder / split / name)
            rows.append({"file_name": name, "captions": [f"a {colour} wall", f"all is {colour}"]})
        lines = "\n".join(json.dumps(row) for row in rows)
        (folder / split / "metadata.jsonl").write_text(lines)


def run(command: str, cwd: Path) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=cwd,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stderr[-2000:]}"
    return done.stdout


def test_the_walk_through_ends_with_a_captioner(tmp_path: Path) -> None:
    build_photographs(tmp_path / "my-photos")
    Image.new("RGB", (90, 70), "green").save(tmp_path / "new.jpg")
    here = Path(sys.executable).parent
    commands = [
        block.strip().replace(".venv/bin", str(here))
        for block in re.findall(r"```sh\n(.*?)```", GUIDE, flags=re.DOTALL)
    ]
    assert [re.findall(r"clipcap (\w+)", command)[0] for command in commands] == [
        "data", "train", "train", "evaluate", "caption",
    ]  # fmt: skip

    outputs = [run(command, tmp_path) for command in commands]

    assert "12" in outputs[0]
    assert "CIDEr-D" in (tmp_path / "my-captioner" / "README.md").read_text()
    with Image.open(tmp_path / "my-captioner.png") as curve:
        assert curve.format == "PNG"
    assert "CIDEr-D" in outputs[3]
    assert "<img" in (tmp_path / "report.html").read_text()
    assert "green" in outputs[4].lower()
    Captioner.load(tmp_path / "my-second")


def test_every_setting_that_the_guide_names_exists() -> None:
    named = re.findall(r"`([a-z_]+ = [^`]+)`", GUIDE)
    assert len(named) > 10
    for setting in named:
        ((field, value),) = tomllib.loads(setting).items()
        assert field in TrainingConfig.model_fields, field
        new = {"start_from": "", "pretrain_text": "captions.jsonl"}  # what some settings need
        TrainingConfig.model_validate({**new, field: value})
    for option in re.findall(r" --([a-z0-9-]+)", GUIDE.split("## The paper's own numbers")[1]):
        assert option in {"out", "split"} or option.replace("-", "_") in TrainingConfig.model_fields
