"""Image intake: from untrusted bytes to the stored form, or a reason why not.

An image is verified by decoding it within limits. What is kept is a fresh JPEG made from
the pixels: upright, sRGB-like RGB on white, long side at most 1024, without any metadata.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image

from captioning.errors import (
    ImageEmpty,
    ImageTooLarge,
    ImageTooManyPixels,
    ImageUnreadable,
    UnsupportedImageType,
)

FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "GIF", "AVIF")
try:
    from pillow_heif import register_heif_opener
except ImportError:  # HEIC is an extra
    pass
else:
    register_heif_opener()
    FORMATS = (*FORMATS, "HEIF")
STORED_SIDE_PX = 1024
THUMBNAIL_SIDE_PX = 320
JPEG_QUALITY = 90
DECODED_AT_ONCE_PX = 40_000_000
"""In all threads of a process together. A pixel takes up to 14 bytes while it is decoded."""
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
MAX_JPEG_SCANS = 100
"""A progressive JPEG has ten or so. Each costs a pass over all pixels and may be 60 bytes long:
a file of a megabyte could keep a core busy for many minutes."""

# What may follow 0xFF between two segments of a JPEG without beginning another: a stuffed byte,
# TEM, a fill byte, a restart. None of them says a length, by which scans could be passed over.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")
_END_OF_IMAGE, _START_OF_SCAN = b"\xff\xd9", b"\xff\xda"

# Pillow warns between its limit and twice its limit; here both are refusals.
warnings.simplefilter("error", Image.DecompressionBombWarning)


@dataclass(frozen=True)
class NormalisedImage:
    """The stored form and its thumbnail, both JPEG. Width and height in pixels."""

    jpeg: bytes
    thumbnail: bytes
    width: int
    height: int
    sha256: str


def normalise(data: bytes, *, max_bytes: int, max_pixels: int) -> NormalisedImage:
    """Verify an upload and make its stored form.

    Raises: ImageEmpty, ImageTooLarge, UnsupportedImageType, ImageTooManyPixels,
    ImageUnreadable.
    """
    if not data:
        raise ImageEmpty("The file is empty.")
    if len(data) > max_bytes:
        raise ImageTooLarge(f"The file is larger than {max_bytes / 1e6:.0f} MB.")
    with _open(data, max_pixels) as opened:
        rgb = _decode(opened)
    small = rgb.copy()
    # As sharp as LANCZOS to the eye at this size, in two fifths of its time.
    small.thumbnail((THUMBNAIL_SIDE_PX, THUMBNAIL_SIDE_PX), Image.Resampling.HAMMING)
    return NormalisedImage(
        jpeg=_as_jpeg(rgb),
        thumbnail=_as_jpeg(small),
        width=rgb.width,
        height=rgb.height,
        sha256=hashlib.sha256(data).hexdigest(),
    )


def as_file(image: Image.Image) -> bytes:
    """An image of a Python program as a file to upload: reduced and upright already, so that
    neither its mode nor the size of a file that never was can be in the way.

    Raises: ImageUnreadable.
    """
    try:
        copy = image.copy()
    except OSError as error:  # opened from a file, and read only now
        raise ImageUnreadable("The image is damaged or cut off.") from error
    buffer = io.BytesIO()
    _decode(copy).save(buffer, "PNG")
    return buffer.getvalue()


def _open(data: bytes, max_pixels: int) -> Image.Image:
    """Read the header only: the format and the size are known before any pixel is decoded."""
    too_many = f"The image has more than {max_pixels / 1e6:.0f} million pixels."
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooManyPixels(too_many) from error
    except Exception as error:  # decoders raise nearly anything on hostile bytes
        known = ", ".join(FORMATS)
        raise UnsupportedImageType(f"The file is not an image of type {known}.") from error
    if image.width * image.height > max_pixels:
        raise ImageTooManyPixels(f"{too_many} It has {image.width} x {image.height}.")
    if image.format in ("JPEG", "MPO") and _count_scans(data) > MAX_JPEG_SCANS:
        raise ImageUnreadable(f"The JPEG has more than {MAX_JPEG_SCANS} scans.")
    return image


def _count_scans(jpeg: bytes) -> int:
    scans, position = 0, 2
    while (marker := _JPEG_MARKER.search(jpeg, position)) and marker[0] != _END_OF_IMAGE:
        scans += marker[0] == _START_OF_SCAN
        length = jpeg[marker.end() : marker.end() + 2]
        position = marker.end() + int.from_bytes(length, "big")
    return scans


class _Room:
    """For so many pixels at once. Who comes first is first; one that is larger is let in alone."""

    def __init__(self, pixels: int) -> None:
        self._size = self._left = pixels
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        pixels = min(pixels, self._size)
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._left >= pixels)
            self._left -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._left += pixels
                self._changed.notify()


_room = _Room(DECODED_AT_ONCE_PX)


def _decode(image: Image.Image) -> Image.Image:
    try:
        pixels = image.width * image.height
        # A JPEG decodes straight to the smallest of 1/2, 1/4, 1/8 that is still large enough.
        image.draft("RGB", (STORED_SIDE_PX, STORED_SIDE_PX))
        if not image.info.get("progressive"):  # of which a decoder keeps the whole all the same
            pixels = image.width * image.height
        with _room.taken(pixels):
            image.load()
            # Reduced before all else: a small file may hold 160 MB of pixels, and each further
            # step at full size would hold them again.
            reduced = _eight_bits(image)
            reduced.thumbnail((STORED_SIDE_PX, STORED_SIDE_PX), Image.Resampling.LANCZOS)
        return _on_white(_upright(reduced))
    except MemoryError:
        raise
    except Exception as error:
        raise ImageUnreadable("The image is damaged or cut off.") from error


def _upright(image: Image.Image) -> Image.Image:
    """As ImageOps.exif_transpose, which also writes the rest of the EXIF anew, and fails where one
    of its tags is odd."""
    turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def _eight_bits(image: Image.Image) -> Image.Image:
    """RGB, or RGBA where anything is transparent: what can be resampled."""
    if image.mode.startswith("I"):  # 16 bits a channel: convert() would clip, not scale
        image = image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
    mode = "RGBA" if image.has_transparency_data else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _as_jpeg(image: Image.Image) -> bytes:
    image.info = {}  # save() would carry a comment over
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)  # optimize: 3 % smaller, three times as long
    return buffer.getvalue()
