"""METEOR and SPICE, which pycocoevalcap computes with Java programs: only where Java is there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from clipcap.evaluation.scores import normalise

CORENLP = "stanford-corenlp-3.6.0.jar"

Texts = dict[int, list[str]]


@dataclass(frozen=True)
class JavaScores:
    """What could be computed, times 100, and of what could not, why."""

    scores: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def java_scores(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> JavaScores:
    """METEOR and SPICE of the whole set, where they can be had."""
    found = {i: [normalise(text)] for i, text in enumerate(candidates)}
    wanted = {i: [normalise(text) for text in texts] for i, texts in enumerate(references)}
    result = JavaScores()
    for name, missing, compute in (
        ("meteor", _missing_for_meteor(), _meteor),
        ("spice", _missing_for_spice(), _spice),
    ):
        if missing:
            result.left_out[name] = missing
            continue
        try:
            result.scores[name] = 100 * compute(wanted, found)
        except (OSError, ValueError, subprocess.CalledProcessError) as error:
            result.left_out[name] = f"its Java program failed: {error}"
    return result


def _missing_for_meteor() -> str | None:
    return None if shutil.which("java") else "Java is not installed"


def _missing_for_spice() -> str | None:
    """pycocoevalcap would download half a gigabyte of programs over plain HTTP, unasked."""
    from pycocoevalcap.spice import spice

    if not (Path(spice.__file__).parent / "lib" / CORENLP).exists():
        return (
            "it needs Stanford CoreNLP, which `python -m pycocoevalcap.spice.get_stanford_models` "
            "downloads"
        )
    return _missing_for_meteor()


def _meteor(wanted: Texts, found: Texts) -> float:
    """pycocoevalcap's own class waits for ever on a lock when its Java program fails."""
    from pycocoevalcap.meteor import meteor

    java = str(shutil.which("java"))
    options = ["-Xmx2G", "-jar", meteor.METEOR_JAR, "-", "-", "-stdio", "-l", "en", "-norm"]
    with subprocess.Popen(  # noqa: S603 (no shell; captions go to its standard input)
        [java, *options],
        cwd=Path(meteor.__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            return _ask_meteor(process, wanted, found)
        finally:
            process.kill()


def _ask_meteor(process: subprocess.Popen[str], wanted: Texts, found: Texts) -> float:
    """It answers each SCORE with counts, and an EVAL of all counts with a line an image and one
    for the whole set."""
    requests, answers = cast(IO[str], process.stdin), cast(IO[str], process.stdout)
    counts = []
    for image, (candidate,) in found.items():
        print("SCORE", *wanted[image], candidate, sep=" ||| ", file=requests, flush=True)
        counts.append(answers.readline().strip())
    print("EVAL", *counts, sep=" ||| ", file=requests, flush=True)
    lines = [answers.readline() for _ in range(len(found) + 1)]
    return float(lines[-1])


def _spice(wanted: Texts, found: Texts) -> float:
    from pycocoevalcap.spice import spice

    value, _ = spice.Spice().compute_score(wanted, found)
    return float(value)
