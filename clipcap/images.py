"""Photographs from files, made what a model can see: upright, opaque, RGB, 8 bits a channel."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps

from clipcap.errors import DataError


def open_image(source: Path | BinaryIO, *, name: str | None = None) -> Image.Image:
    """Read an image file, the first frame where there are several.

    Raises: DataError, naming the file, or `name` where the source has none.
    """
    path = name or source
    try:
        with Image.open(source) as image:
            return to_rgb(image)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or 'cannot be read as an image'}") from error
    # A damaged or hostile file makes Pillow raise whatever its decoder stumbled over.
    except Exception as error:
        raise DataError(f"{path}: cannot be read as an image: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as RGB: turned as its EXIF says, and on white where it is transparent."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits a channel: convert() would clip, not scale
        upright = upright.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if upright.has_transparency_data:
        opaque = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return upright.convert("RGB")
