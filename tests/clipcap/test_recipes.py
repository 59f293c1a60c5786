"""The bundled model's recipe; its programs have tests of their own (test_group_captions.py …)."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clipcap.training.config import read_config

ROOT = Path(__file__).parents[2]
RUNS = sorted((ROOT / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_a_run_of_the_recipe_can_be_read(path: Path) -> None:
    config = read_config(path, {"pretrain_text": Path("texts.jsonl")})
    assert config.name == path.stem


def test_make_runs_each_of_them() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {Path(name) for name in re.findall(r"recipes/\w+\.(?:toml|py)", makefile)}
    assert {path.relative_to(ROOT) for path in RUNS} <= named
    assert [path for path in named if not (ROOT / path).exists()] == []
