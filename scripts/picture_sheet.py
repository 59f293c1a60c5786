"""All pictures of the pages on one sheet: `picture_sheet.py FOLDER SHEET`, with FOLDER as
tests/browser/test_pictures.py fills it. Each page has a column: on a desktop, light and dark, and
on a phone."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

PAGES = ("sign-in", "upload", "batch", "job", "gallery")
DESKTOP_PX, PHONE_PX = (300, 211), (146, 300)
GAP_PX = 8
QUALITY = 60


def sheet(folder: Path) -> Image.Image:
    (width, height), (phone_width, phone_height) = DESKTOP_PX, PHONE_PX
    size = (
        GAP_PX + len(PAGES) * (width + GAP_PX),
        4 * GAP_PX + 2 * height + phone_height,
    )
    whole = Image.new("RGB", size, "#888")
    for number, page in enumerate(PAGES):
        left = GAP_PX + number * (width + GAP_PX)
        for row, theme in enumerate(("light", "dark")):
            desktop = _picture(folder / f"{page}-desktop-{theme}.webp", DESKTOP_PX)
            whole.paste(desktop, (left, GAP_PX + row * (height + GAP_PX)))
            phone = _picture(folder / f"{page}-phone-{theme}.webp", PHONE_PX)
            place = (left + row * (phone_width + GAP_PX), size[1] - GAP_PX - phone_height)
            whole.paste(phone, place)
    return whole


def _picture(path: Path, size_px: tuple[int, int]) -> Image.Image:
    with Image.open(path) as picture:
        return picture.resize(size_px, Image.Resampling.LANCZOS)


if __name__ == "__main__":
    sheet(Path(sys.argv[1])).save(sys.argv[2], "WEBP", quality=QUALITY, method=6)
