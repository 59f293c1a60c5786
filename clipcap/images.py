"""Photographs from files, made what a model can see: upright, opaque, RGB, 8 bits a channel."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from clipcap.errors import DataError

ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its EXIF orientation."""

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")


def open_image(
    source: Path | BinaryIO, *, name: str | None = None, at_least: tuple[int, int] | None = None
) -> Image.Image:
    """Read an image file, the first frame where there are several.

    With `at_least`, the height and width in pixels of what will be made of it, a JPEG is decoded
    at the smallest of 1/8, 1/4, 1/2 of its size that is still as large, which is several times
    faster.

    Raises: DataError, naming the file, or `name` where the source has none.
    """
    path = name or source
    reads_heif = _register_heif()
    try:
        with Image.open(source) as image:
            if at_least is not None:
                side = max(at_least)  # height and width may yet change places
                image.draft(None, (side, side))
            return to_rgb(image)
    except UnidentifiedImageError as error:
        reason = "cannot be read as an image"
        if not reads_heif and _is_heif(source):
            reason = "HEIC photographs need `pip install 'captioning[heic]'`"
        raise DataError(f"{path}: {reason}") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or 'cannot be read as an image'}") from error
    # A damaged or hostile file makes Pillow raise whatever its decoder stumbled over.
    except Exception as error:
        raise DataError(f"{path}: cannot be read as an image: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Any image as RGB: turned as its EXIF says, and on white where it is transparent."""
    upright = _upright(image)
    if upright.mode.startswith("I"):  # 16 bits a channel: convert() would clip, not scale
        upright = upright.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    if upright.has_transparency_data:
        opaque = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque).convert("RGB")
    return upright.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """As ImageOps.exif_transpose, which also writes the rest of the EXIF anew, and fails where one
    of its tags is odd."""
    image.load()  # a TIFF is turned by this already
    turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    if turn is None:
        return image
    upright = image.transpose(turn)
    upright.info = {key: value for key, value in image.info.items() if key == "transparency"}
    return upright


@cache
def _register_heif() -> bool:
    """Let Pillow read HEIC if the extra is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def _is_heif(source: Path | BinaryIO) -> bool:
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
        file.seek(0)
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS
