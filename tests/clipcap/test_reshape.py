from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from clipcap.data.folder import read_folder
from tests.tiny_bundle import build_colour_data

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))
import reshape


def test_the_same_photographs_with_other_shapes_and_sizes(tmp_path: Path) -> None:
    folder = build_colour_data(tmp_path / "data") / "train"
    reshape.reshape(folder, tmp_path / "out")
    before, after = read_folder(folder), read_folder(tmp_path / "out")
    assert [e.captions for e in after] == [e.captions for e in before]
    sizes = [example.image.open().size for example in after]
    assert len(set(sizes)) > 4
    assert {max(size) for size in sizes} <= set(reshape.LONG_SIDES_PX)
    assert any(width > height for width, height in sizes)
    assert any(width < height for width, height in sizes)
    for one, other in zip(before, after, strict=True):
        assert colour(one.image.open()) == colour(other.image.open())


def colour(image: Image.Image) -> tuple[bool, ...]:
    return tuple(value > 127 for value in image.convert("RGB").resize((1, 1)).getpixel((0, 0)))
