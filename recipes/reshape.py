"""Stretches photographs to the shapes and sizes that people's have, to see whether a captioner
that learned from squashed squares of 224 pixels says the same of them.

    python recipes/reshape.py FOLDER OUT_FOLDER
    clipcap evaluate BUNDLE OUT_FOLDER

FOLDER holds metadata.jsonl and its photographs. Each gets one of the aspect ratios and one of
the sizes below, at random, the same on each run.
"""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path

from PIL import Image

from clipcap.data.folder import METADATA, read_folder

ASPECTS = (16 / 9, 3 / 2, 4 / 3, 1, 3 / 4, 2 / 3, 9 / 16)
LONG_SIDES_PX = (160, 320, 640, 1024, 2048)
QUALITY = 88


def reshape(folder: Path, out: Path) -> None:
    draw = random.Random(0)  # noqa: S311 (no secret)
    out.mkdir(parents=True)
    for example in read_folder(folder):
        aspect, long_side = draw.choice(ASPECTS), draw.choice(LONG_SIDES_PX)
        width = round(long_side * min(1, aspect))
        height = round(long_side / max(1, aspect))
        photograph = example.image.open().convert("RGB")
        stretched = photograph.resize((width, height), Image.Resampling.BICUBIC)
        place = out / example.image.name
        place.parent.mkdir(parents=True, exist_ok=True)
        stretched.save(place, quality=QUALITY)
    shutil.copy(folder / METADATA, out / METADATA)


if __name__ == "__main__":
    reshape(Path(sys.argv[1]), Path(sys.argv[2]))
