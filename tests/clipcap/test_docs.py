"""Every `clipcap` command of docs/data.md and docs/evaluation.md runs as it stands there."""

from __future__ import annotations

import pickle
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from clipcap.cli import main
from tests.tiny_bundle import build_colour_data

DOCS = Path(__file__).parents[2] / "docs"
COMMANDS = [
    command
    for name in ("data.md", "evaluation.md")
    for block in re.findall(r"```sh\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)
    for command in block.splitlines()
]


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_docs(
    command: str, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    build_colour_data(Path("my-photos"))
    shutil.copytree(tiny_bundle, "my-captioner")
    rows = {"clip_embedding": torch.zeros(1, 4), "captions": [{"caption": "a", "image_id": "1"}]}
    Path("oscar_split_ViT-B_32_train.pkl").write_bytes(pickle.dumps(rows))
    program, *arguments = shlex.split(command)
    assert program == "clipcap"
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
