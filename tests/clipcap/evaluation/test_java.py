"""METEOR and SPICE: computed where Java is there, and said why not where it is not. METEOR's own
program takes a minute to start, so its part is played by a script that speaks as it does."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clipcap.evaluation.java import java_scores

REFERENCES = [["a dog runs on the beach", "a wet dog runs"], ["two men play football"]]
METEOR = f"""#!{sys.executable}
import sys
for line in sys.stdin:
    command, *fields = line.rstrip("\\n").split(" ||| ")
    if command == "SCORE":
        *references, candidate = fields
        print(int(candidate in references), flush=True)
    elif command == "EVAL":
        print(*fields, sum(map(int, fields)) / len(fields), sep="\\n", flush=True)
"""


@pytest.fixture
def java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An executable of that name, first and alone on the path."""
    path = tmp_path / "java"
    path.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return path


def test_meteor_is_asked_as_its_program_wants(java: Path) -> None:
    java.write_text(METEOR)
    found = java_scores(["A wet dog runs!", "a zebra"], REFERENCES)
    assert found.scores == {"meteor": 50}
    assert "Stanford CoreNLP" in found.left_out["spice"]


def test_without_java_it_is_said(java: Path) -> None:
    java.unlink()
    found = java_scores(["a dog", "two men"], REFERENCES)
    assert found.scores == {}
    assert found.left_out["meteor"] == "Java is not installed"
    assert found.left_out.keys() == {"meteor", "spice"}


def test_a_java_that_fails_costs_only_its_scores(java: Path) -> None:
    java.write_text("#!/bin/sh\nexit 1\n")
    found = java_scores(["a dog", "two men"], REFERENCES)
    assert found.scores == {}
    assert found.left_out["meteor"].startswith("its Java program failed")
