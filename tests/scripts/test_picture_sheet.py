from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path

from PIL import Image

SCRIPT = Path(__file__).parents[2] / "scripts" / "picture_sheet.py"
PAGES = ("sign-in", "upload", "batch", "job", "gallery")


def test_every_picture_has_its_place_on_the_sheet(tmp_path: Path) -> None:
    sizes = {"desktop": (64, 45), "phone": (18, 37)}
    names = [f"{page}-{size}-{theme}" for page, size, theme in product(PAGES, sizes, PLACES)]
    for number, name in enumerate(names):
        size = sizes[name.rsplit("-", 2)[1]]
        Image.new("RGB", size, colour(number)).save(tmp_path / f"{name}.webp", lossless=True)
    sheet = tmp_path / "sheet.webp"
    subprocess.run([sys.executable, SCRIPT, tmp_path, sheet], check=True, timeout=60)
    with Image.open(sheet) as shown:
        picture = shown.convert("RGB")
        for number, name in enumerate(names):
            page, size, theme = name.rsplit("-", 2)
            x, y = PLACES[theme][size]
            found = picture.getpixel((round((PAGES.index(page) + x) * picture.width / 5), y))
            assert isinstance(found, tuple)
            far = max(abs(a - b) for a, b in zip(found, colour(number), strict=True))
            assert far < 12, name


PLACES = {
    "light": {"desktop": (0.5, 100), "phone": (0.25, 600)},
    "dark": {"desktop": (0.5, 320), "phone": (0.75, 600)},
}
"""Where a picture is: the share of its column's width, and pixels from the top."""


def colour(number: int) -> tuple[int, int, int]:
    return (12 * number, 255 - 12 * number, 100 + 60 * (number % 3))
