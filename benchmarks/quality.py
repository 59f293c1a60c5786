"""What each precision costs: `python -m benchmarks.quality DATA [BUNDLE]` captions the dev
photographs of a folder in each that this processor can compute in, and scores the captions."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from clipcap import Captioner
from clipcap.data import read_evaluation_set
from clipcap.evaluation.bootstrap import differences
from clipcap.evaluation.evaluate import evaluate
from clipcap.precision import MODES, possible_modes

HEADER = """\
| precision | BLEU-4 | CIDEr-D | less that of fp32 | 95 % interval | other captions |
|---|---|---|---|---|---|"""


def main(data: str, bundle: str = "bundled") -> None:
    examples = read_evaluation_set(Path(data))
    results = {}
    for mode in possible_modes(torch.device("cpu")):
        captioner = Captioner.load(bundle, "cpu", mode)
        results[mode] = evaluate(captioner, examples)
    exact = results[MODES[0]]
    print(f"{bundle} ({captioner.revision}) on {len(examples)} images of {data}\n\n{HEADER}")
    for mode, found in results.items():
        cost = differences(found.measures, exact.measures, len(examples))["cider_d"]
        others = sum(a != b for a, b in zip(found.captions, exact.captions, strict=True))
        print(
            f"| {mode} | {found.scores.bleu_4:.2f} | {found.scores.cider_d:.2f} "
            f"| {cost.value:+.2f} | {cost.low:+.2f} to {cost.high:+.2f} "
            f"| {100 * others / len(examples):.1f} % |"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
