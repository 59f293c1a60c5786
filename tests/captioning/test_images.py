"""Image intake: every honest photograph becomes a plain upright JPEG, nothing else does."""

from __future__ import annotations

import hashlib
import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageCms, PngImagePlugin
from PIL.TiffImagePlugin import IFDRational

from captioning.errors import (
    ImageEmpty,
    ImageRejected,
    ImageTooLarge,
    ImageTooManyPixels,
    ImageUnreadable,
    UnsupportedImageType,
)
from captioning.images import STORED_SIDE_PX, THUMBNAIL_SIDE_PX, NormalisedImage, normalise
from tests.factories import encoded, photo
from tests.hostile import noise, png, with_odd_tag, with_segment

LIMIT_PX = 40_000_000
EXIF_ORIENTATION, EXIF_GPS, EXIF_MAKE = 0x0112, 0x8825, 0x010F

# Pillow warns of odd files, and pytest's error filter would turn the warning into a refusal
# that the service does not make.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def take(data: bytes, max_bytes: int = 20_000_000) -> NormalisedImage:
    return normalise(data, max_bytes=max_bytes, max_pixels=LIMIT_PX)


def stored(data: bytes) -> Image.Image:
    taken = take(data)
    image = Image.open(io.BytesIO(taken.jpeg))
    image.load()
    assert image.format == "JPEG"
    assert image.mode == "RGB"
    assert image.size == (taken.width, taken.height)
    return image


def near(pixel: Any, expected: tuple[int, int, int], tolerance: int = 12) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(pixel, expected, strict=True))


def centre(image: Image.Image) -> Any:
    return image.getpixel((image.width // 2, image.height // 2))


def quadrants(size: tuple[int, int] = (64, 32)) -> Image.Image:
    """Red, green, blue and white by quarters, clockwise from the top left."""
    image = Image.new("RGB", size)
    half = (size[0] // 2, size[1] // 2)
    corners = (
        (0, 0, "red"),
        (half[0], 0, "lime"),
        (half[0], half[1], "white"),
        (0, half[1], "blue"),
    )
    for x, y, colour in corners:
        image.paste(colour, (x, y, x + half[0], y + half[1]))
    return image


# --- what is accepted ---------------------------------------------------------------------


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF"])
def test_it_takes_every_supported_format(format: str) -> None:
    image = stored(photo((200, 100), colour=(20, 130, 60), format=format))
    assert image.size == (200, 100)
    assert near(centre(image), (20, 130, 60))


@pytest.mark.parametrize("format", ["WEBP", "PNG", "AVIF"])
def test_it_takes_lossless_and_progressive_forms(format: str) -> None:
    options = {"WEBP": {"lossless": True}, "PNG": {"optimize": True}, "AVIF": {"quality": 100}}
    assert stored(encoded(noise(), format, **options[format])).size == (160, 120)
    assert stored(encoded(noise(), "JPEG", progressive=True)).size == (160, 120)


def test_it_takes_a_phones_multi_picture_jpeg() -> None:
    data = encoded(quadrants(), "MPO", save_all=True, append_images=[noise((64, 32))])
    assert near(stored(data).getpixel((5, 5)), (255, 0, 0), 40)


def test_it_says_what_it_took() -> None:
    data = photo((300, 200))
    taken = take(data)
    assert taken.sha256 == hashlib.sha256(data).hexdigest()
    assert (taken.width, taken.height) == (300, 200)


@pytest.mark.parametrize(
    ("size", "stored_size", "thumbnail_size"),
    [
        ((1, 1), (1, 1), (1, 1)),
        ((1024, 1024), (1024, 1024), (320, 320)),
        ((3000, 2000), (1024, 683), (320, 213)),
        ((2000, 3000), (683, 1024), (213, 320)),
        ((9000, 1), (1024, 1), (320, 1)),
        ((1, 9000), (1, 1024), (1, 320)),
        ((4000, 100), (1024, 26), (320, 8)),
    ],
)
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_sizes(
    format: str,
    size: tuple[int, int],
    stored_size: tuple[int, int],
    thumbnail_size: tuple[int, int],
) -> None:
    taken = take(photo(size, format=format))
    assert (taken.width, taken.height) == stored_size
    assert max(stored_size) <= STORED_SIDE_PX
    with Image.open(io.BytesIO(taken.thumbnail)) as thumbnail:
        assert thumbnail.size == thumbnail_size
        assert max(thumbnail.size) <= THUMBNAIL_SIDE_PX


# --- upright ------------------------------------------------------------------------------

TURNED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "HEIF"])
@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("size", [(64, 32), (2400, 1200)])
def test_every_orientation_comes_out_upright(
    size: tuple[int, int], orientation: int, format: str
) -> None:
    if size != (64, 32) and format != "JPEG":
        size = (1200, 600)  # large enough to be reduced; AVIF is slow
    transpose = TURNED[orientation]
    lying = quadrants(size) if transpose is None else quadrants(size).transpose(transpose)
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    upright = stored(encoded(lying, format, exif=exif.tobytes(), quality=90))
    w, h = upright.size
    assert (w, h) == (64, 32) or (w, h) == (1024, 512)
    assert near(upright.getpixel((w // 4, h // 4)), (255, 0, 0), 30)
    assert near(upright.getpixel((3 * w // 4, h // 4)), (0, 255, 0), 30)
    assert near(upright.getpixel((3 * w // 4, 3 * h // 4)), (255, 255, 255), 30)
    assert near(upright.getpixel((w // 4, 3 * h // 4)), (0, 0, 255), 30)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    assert stored(encoded(quadrants(), "JPEG", exif=exif.tobytes())).size == (64, 32)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage that is no TIFF",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0six\0\0\0\0\0",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03\0\x01\0\0\0\x06\0\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\0\x01\0\x01\0\0\x82\x9a\0\x05",
    ],
)
def test_damaged_metadata_spoils_no_photograph(exif: bytes) -> None:
    assert sum(stored(with_segment(encoded(quadrants(), "JPEG"), 0xE1, exif)).size) == 96


def test_an_odd_tag_beside_the_orientation_spoils_no_photograph() -> None:
    """Written anew, as some programs that turn images do, it would be an error."""
    taken = take(with_odd_tag(6))
    assert (taken.width, taken.height) == (48, 64)


def test_odd_metadata_beside_an_orientation_spoils_no_photograph() -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    exif[0x010F] = "Caméra ✓"
    exif[0x829A] = IFDRational(1, 0)
    exif[0x9286] = b"\xff" * 50
    data = encoded(quadrants(), "JPEG", exif=exif.tobytes())
    assert stored(data).size == (32, 64)


# --- colours ------------------------------------------------------------------------------


def test_cmyk_becomes_rgb() -> None:
    image = stored(photo(mode="CMYK", colour=(0, 255, 255, 0)))
    pixel: Any = centre(image)
    assert pixel[0] > 200
    assert max(pixel[1:]) < 80


@pytest.mark.parametrize(("level", "expected"), [(0, 0), (0x8000, 128), (0xFFFF, 255), (257, 1)])
def test_sixteen_bits_are_scaled_and_not_clipped(level: int, expected: int) -> None:
    image = stored(encoded(Image.new("I;16", (40, 30), level), "PNG"))
    assert near(centre(image), (expected,) * 3, 2)


def test_sixteen_bit_colour_is_read() -> None:
    rows = b"".join(b"\0" + struct.pack(">HHH", 0xFFFF, 0x8000, 0) * 8 for _ in range(8))
    assert near(centre(stored(png(8, 8, 16, 2, rows))), (255, 128, 0), 14)


def test_sixteen_bit_grey_with_transparency_is_read() -> None:
    rows = b"".join(b"\0" + struct.pack(">H", 0x8000) * 8 for _ in range(8))
    data = png(8, 8, 16, 0, rows, (b"tRNS", struct.pack(">H", 0)))
    assert near(centre(stored(data)), (128, 128, 128), 3)


@pytest.mark.parametrize(("mode", "clear"), [("RGBA", (200, 0, 0, 0)), ("LA", (90, 0))])
@pytest.mark.parametrize("format", ["PNG", "WEBP"])
def test_transparency_lies_on_white(mode: str, clear: tuple[int, ...], format: str) -> None:
    image = Image.new(mode, (64, 48), clear)
    data = encoded(image if format == "PNG" else image.convert("RGBA"), format)
    assert near(centre(stored(data)), (255, 255, 255), 2)


def test_half_transparency_is_mixed_with_white() -> None:
    assert near(centre(stored(photo(mode="RGBA", colour=(0, 0, 0, 128), format="PNG"))), (127,) * 3)


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_a_palette_with_transparency_lies_on_white(format: str) -> None:
    image = Image.new("P", (64, 48), 1)
    image.putpalette([255, 0, 0, 0, 0, 255])
    data = encoded(image, format, transparency=1)
    assert near(centre(stored(data)), (255, 255, 255), 2)


def test_a_palette_with_an_alpha_for_each_entry_is_mixed() -> None:
    image = Image.new("P", (64, 48), 1)
    image.putpalette([255, 0, 0, 0, 0, 0])
    data = encoded(image, "PNG", transparency=b"\xff\x80")
    assert near(centre(stored(data)), (127, 127, 127))


def test_a_large_transparent_image_shows_no_colour_of_its_clear_parts() -> None:
    """Reducing before laying on white would let the hidden red bleed."""
    image = Image.new("RGBA", (3000, 2000), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (1500, 0, 3000, 2000))
    small = stored(encoded(image, "PNG", compress_level=1))
    assert near(small.getpixel((10, 300)), (255, 255, 255), 3)
    assert near(small.getpixel((1000, 300)), (0, 0, 255), 3)
    pixels = {small.getpixel((x, 300)) for x in range(small.width)}
    assert all(isinstance(p, tuple) and p[0] <= p[2] + 8 for p in pixels)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_black_and_white_is_read(mode: str) -> None:
    assert near(centre(stored(photo(mode=mode, colour=255, format="PNG"))), (255, 255, 255), 2)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_of_an_animation_the_first_frame_counts(format: str) -> None:
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=50)
    assert near(centre(stored(data)), (255, 0, 0))


# --- what must not come through -----------------------------------------------------------

SECRETS = (b"SECRET-GPS", b"SECRET-COMMENT", b"SECRET-XMP", b"SECRET-ICC", b"SECRET-TEXT")


def laden(format: str) -> bytes:
    exif = Image.Exif()
    exif[EXIF_MAKE] = "SECRET-GPS camera"
    exif.get_ifd(EXIF_GPS)[2] = (IFDRational(52), IFDRational(31), IFDRational(12))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options: dict[str, Any] = {"exif": exif.tobytes(), "icc_profile": profile + b"SECRET-ICC"}
    if format == "JPEG":
        options |= {"comment": b"SECRET-COMMENT", "xmp": b"<x:xmpmeta>SECRET-XMP</x:xmpmeta>"}
    if format == "WEBP":
        options |= {"xmp": b"<x:xmpmeta>SECRET-XMP</x:xmpmeta>"}
    if format == "PNG":
        text = PngImagePlugin.PngInfo()
        text.add_text("Comment", "SECRET-TEXT")
        text.add_itxt("XML:com.adobe.xmp", "SECRET-XMP")
        options |= {"pnginfo": text}
    if format == "GIF":
        options = {"comment": b"SECRET-COMMENT"}
    return encoded(noise(), format, **options)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "HEIF"])
def test_no_metadata_is_kept(format: str) -> None:
    data = laden(format)
    assert any(secret in data for secret in SECRETS)
    taken = take(data)
    for kept in (taken.jpeg, taken.thumbnail):
        assert not [secret for secret in SECRETS if secret in kept]
        with Image.open(io.BytesIO(kept)) as image:
            assert not image.getexif()
            assert not {"exif", "icc_profile", "comment", "xmp", "photoshop"} & image.info.keys()
        assert markers(kept) <= {0xE0, 0xDB, 0xC0, 0xC4, 0xDA}


def markers(jpeg: bytes) -> set[int]:
    """The segments before the pixels: APP0, tables, frame and scan are all there should be."""
    found, position = set(), 2
    while jpeg[position + 1] != 0xDA:
        found.add(jpeg[position + 1])
        position += 2 + int.from_bytes(jpeg[position + 2 : position + 4], "big")
    return found


@pytest.mark.parametrize(
    "tail", [b"PK\x03\x04 a zip archive", b"<script>alert(1)</script>", b"\0" * 999]
)
def test_what_is_glued_to_an_image_is_left_behind(tail: bytes) -> None:
    taken = take(photo() + tail)
    assert tail not in taken.jpeg
    assert tail not in taken.thumbnail
    assert taken.jpeg == take(photo()).jpeg


# --- refusals -----------------------------------------------------------------------------


def test_it_refuses_an_empty_file() -> None:
    with pytest.raises(ImageEmpty):
        take(b"")


def test_it_refuses_a_file_that_is_too_large() -> None:
    data = photo()
    assert take(data, max_bytes=len(data))
    with pytest.raises(ImageTooLarge, match="40 MB"):
        take(b"\xff" * 40_000_001, max_bytes=40_000_000)


@pytest.mark.parametrize(
    "data",
    [
        b"just a text named photo.jpg\n",
        b"\0",
        b"\xff\xd8\xff",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a",
        b"RIFF\x10\0\0\0WEBPVP8 ",
        b"\0\0\0\x18ftypavif",
        b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        b"%PDF-1.7 ...",
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"PK\x03\x04",
        b"\xff\xd8\xff\xe0" + b"\0" * 5000,
    ],
    ids=repr,
)
def test_it_refuses_what_is_no_image(data: bytes) -> None:
    with pytest.raises((UnsupportedImageType, ImageUnreadable)):
        take(data)


@pytest.mark.parametrize("format", ["BMP", "TIFF", "ICO", "PPM", "TGA", "PCX", "JPEG2000", "DDS"])
def test_it_refuses_formats_that_it_does_not_know(format: str) -> None:
    with pytest.raises(UnsupportedImageType, match="JPEG, PNG, WEBP, GIF, AVIF"):
        take(photo(format=format))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF"])
def test_it_refuses_an_image_cut_off_anywhere(format: str) -> None:
    options: dict[str, Any] = {"quality": 90} if format != "GIF" else {}
    whole = encoded(noise(), format, **options)
    for tenths in (1, 2, 5, 10, 30, 50, 70, 90, 95):
        with pytest.raises(ImageRejected):
            take(whole[: len(whole) * tenths // 100])


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF"])
def test_damaged_bytes_are_refused_or_read_but_nothing_else_happens(format: str) -> None:
    whole = encoded(noise((64, 48)), format)
    for position in range(0, len(whole), max(1, len(whole) // 150)):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        try:
            taken = take(bytes(damaged))
        except ImageRejected:
            continue
        assert Image.open(io.BytesIO(taken.jpeg)).size == (taken.width, taken.height)


@pytest.fixture
def nothing_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object) -> None:
        raise AssertionError("a pixel was decoded")

    monkeypatch.setattr("captioning.images._decode", fail)


@pytest.mark.parametrize(
    ("width", "height"),
    [(8000, 6250), (10_000, 10_000), (50_000, 50_000), (2**31 - 1, 2**31 - 1), (40_000_001, 1)],
)
@pytest.mark.usefixtures("nothing_is_decoded")
def test_a_png_bomb_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(ImageTooManyPixels, match="40 million"):
        take(png(width, height, 8, 2, b"\0" * 1000))


@pytest.mark.usefixtures("nothing_is_decoded")
def test_other_bombs_are_refused_by_their_headers() -> None:
    gif = bytearray(photo(format="GIF"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    jpeg = bytearray(photo(format="JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", 65500, 65500)
    for bomb in (gif, jpeg):
        with pytest.raises(ImageTooManyPixels):
            take(bytes(bomb))


def test_a_jpeg_of_endless_scans_is_refused() -> None:
    whole = encoded(quadrants(), "JPEG", progressive=True)
    last_scan = whole[whole.rindex(b"\xff\xda") : -2]
    with pytest.raises(ImageUnreadable, match="scans"):
        take(whole[:-2] + last_scan * 1000 + b"\xff\xd9")


def test_scans_behind_a_marker_without_a_length_are_counted() -> None:
    whole = encoded(quadrants(), "JPEG", progressive=True)
    last_scan = whole[whole.rindex(b"\xff\xda") : -2]
    with pytest.raises(ImageUnreadable, match="scans"):
        take(whole[:-2] + b"\xff\x01" + last_scan * 1000 + b"\xff\xd9")


def test_a_video_behind_a_jpeg_is_not_taken_for_scans() -> None:
    """Phones append one; so does any thumbnail in the metadata hold a scan of its own."""
    thumbnail = with_segment(photo(), 0xE1, b"Exif\0\0" + photo((8, 8)) + b"\xff\xda" * 200)
    assert take(thumbnail + b"\xff\xda" * 500)


def test_a_webp_bomb_is_refused() -> None:
    still = encoded(Image.new("RGBA", (16, 16), (1, 2, 3, 4)), "WEBP", exif=Image.Exif().tobytes())
    bomb = bytearray(still)
    canvas = bomb.index(b"VP8X") + 12
    bomb[canvas : canvas + 6] = (40_000).to_bytes(3, "little") * 2
    with pytest.raises(ImageRejected):
        take(bytes(bomb))


def test_an_image_of_just_the_limit_is_taken() -> None:
    assert normalise(photo((100, 50)), max_bytes=10**6, max_pixels=5000).width == 100
    with pytest.raises(ImageTooManyPixels):
        normalise(photo((101, 50)), max_bytes=10**6, max_pixels=5000)


def test_a_text_bomb_in_a_png_is_harmless() -> None:
    bomb = b"Comment\0\0" + zlib.compress(b"A" * 300_000_000, 9)
    data = png(8, 8, 8, 2, (b"\0" + b"\x7f" * 24) * 8, (b"zTXt", bomb))
    with pytest.raises(ImageRejected):
        take(data)


def test_a_frame_larger_than_its_screen_is_counted() -> None:
    gif = bytearray(photo((16, 16), format="GIF"))
    descriptor = gif.index(b"\x2c\0\0\0\0")
    gif[descriptor + 5 : descriptor + 9] = struct.pack("<HH", 65535, 65535)
    with pytest.raises(ImageRejected):
        take(bytes(gif))


MEASURE = r"""
import re, resource, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from captioning.images import normalise

def peak_mib():
    if sys.platform == "linux":  # where ru_maxrss begins with the parent's
        return int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024**2

data = sys.stdin.buffer.read()
at_once = int(sys.argv[1])
before = peak_mib()
with ThreadPoolExecutor(at_once) as pool:
    limits = {"max_bytes": 20_000_000, "max_pixels": 40_000_000}
    all_of_them = [pool.submit(normalise, data, **limits) for _ in range(at_once)]
for one in all_of_them:
    one.result()
print(peak_mib() - before)
"""


def measured_mib(data: bytes, *, at_once: int) -> int:
    command = [sys.executable, "-c", MEASURE, str(at_once)]
    root = Path(__file__).parents[2]
    measured = subprocess.run(command, input=data, capture_output=True, check=True, cwd=root)
    return int(measured.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "most_mib"), [("RGB", 300), ("RGBA", 500)])
def test_the_largest_image_is_held_once_and_not_at_each_step(mode: str, most_mib: int) -> None:
    """Its pixels alone are 153 MiB; a transparent one is resampled in another form."""
    data = photo((8000, 4990), mode=mode, format="PNG", compress_level=1)
    assert measured_mib(data, at_once=1) < most_mib


@pytest.mark.slow
@pytest.mark.parametrize(
    ("size", "form"),
    [
        ((4000, 3000), {"format": "WEBP"}),
        ((6000, 4000), {"format": "JPEG", "progressive": True, "subsampling": 0}),
    ],
)
def test_many_at_once_wait_for_room(size: tuple[int, int], form: dict[str, Any]) -> None:
    """A web server has many threads, and its memory an end."""
    data = photo(size, **form)
    assert measured_mib(data, at_once=1) > 100
    assert measured_mib(data, at_once=16) < 800
