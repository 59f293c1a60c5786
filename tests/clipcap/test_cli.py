"""The `clipcap` command, as a process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clipcap.precision import choose
from tests.tiny_bundle import build_colour_data

pytestmark = pytest.mark.slow


def clipcap(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "clipcap", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_help_waits_for_no_torch() -> None:
    code = (
        "import sys, clipcap.cli\n"
        "clipcap.cli.main(['train', '--help'], standalone_mode=False)\n"
        "print('loaded:', {'torch', 'transformers', 'numpy', 'PIL'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "--epochs" in done.stdout
    assert done.stdout.endswith("loaded: set()\n")


def test_evaluate_writes_scores_as_json(tiny_bundle: Path, tmp_path: Path) -> None:
    data = build_colour_data(tmp_path / "data")
    decoding = ("--method", "greedy", "--max-words", 4)
    done = clipcap("evaluate", tiny_bundle, data, "--json", tmp_path / "scores.json", *decoding)

    assert done.returncode == 0, done.stderr
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert (scores["decoding"]["method"], scores["decoding"]["max_words"]) == ("greedy", 4)
    assert scores["images"] == 8
    assert {"bleu_4", "rouge_l", "cider_d"} <= scores.keys()
    assert scores["rouge_l"] > 90
    assert f"{scores['cider_d']:.2f}" in done.stdout


def test_info_says_what_a_bundle_is_made_of(tiny_bundle: Path) -> None:
    done = clipcap("info", tiny_bundle)
    assert done.returncode == 0
    assert "tiny" in done.stdout
    assert "32 x 32 pixels" in done.stdout
    assert "mlp: 32 -> 2 x 32" in done.stdout
    (runs_on,) = [line for line in done.stdout.splitlines() if line.startswith("runs on ")]
    if not torch.cuda.is_available():
        chosen = choose("auto", torch.device("cpu"))
        assert runs_on == f"runs on   CPU, threads: 1, {chosen.mode}: {chosen.reason}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("caption", "--model", "nowhere", "photo.jpg"),
        ("evaluate", "nowhere", "data"),
        ("info", "nowhere"),
        ("train", "nowhere", "--out", "out"),
        ("train", "nowhere", "--out", "out", "--epochs", "many"),
        ("train", "nowhere", "--out", "out", "--config", "nowhere.toml"),
    ],
)
def test_a_mistake_ends_in_one_line(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = clipcap(*arguments)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("Error: ")
