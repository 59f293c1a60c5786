"""Image files as they come: damaged, transparent, 16 bits deep, lying on their side."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from clipcap import DataError, images
from clipcap.images import open_image, to_rgb
from tests.hostile import with_odd_tag


def png(**options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), "red").save(buffer, "PNG", **options)
    return buffer.getvalue()


def with_byte(data: bytes, position: int, value: int) -> bytes:
    return data[:position] + bytes([value]) + data[position + 1 :]


def huge_text() -> PngInfo:
    info = PngInfo()
    info.add_text("comment", "x" * (1 << 21), zip=True)
    return info


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"no image", id="text"),
        pytest.param(png()[:-40], id="cut off"),
        pytest.param(with_byte(png(), 11, 0), id="header too short"),  # Pillow: ValueError
        pytest.param(with_byte(png(), 36, 0), id="broken chunk"),  # Pillow: SyntaxError
        pytest.param(png(pnginfo=huge_text()), id="text bomb"),  # Pillow: ValueError
    ],
)
def test_a_damaged_image_is_refused_by_name(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "bad.png").write_bytes(data)
    with pytest.raises(DataError, match=r"bad\.png: cannot be read as an image"):
        open_image(tmp_path / "bad.png")


def test_a_bomb_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bomb.png").write_bytes(png())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"bomb\.png.*bomb"):
        open_image(tmp_path / "bomb.png")


def test_what_is_no_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.png: No such file"):
        open_image(tmp_path / "gone.png")
    with pytest.raises(DataError, match="Is a directory"):
        open_image(tmp_path)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG", "GIF"])
def test_every_common_format_is_read(tmp_path: Path, format: str) -> None:
    Image.new("RGB", (20, 10), "red").save(tmp_path / "photo", format)
    image = open_image(tmp_path / "photo")
    assert (image.mode, image.size) == ("RGB", (20, 10))
    red, green, _ = image.getpixel((5, 5))
    assert red > 240
    assert green < 15


@pytest.mark.parametrize("format", ["JPEG", "TIFF", "PNG", "WEBP"])
def test_a_photo_on_its_side_is_turned_once(tmp_path: Path, format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10), "red").save(tmp_path / "photo", format, exif=exif)
    image = open_image(tmp_path / "photo")
    assert image.size == (10, 20)
    assert to_rgb(image).size == (10, 20)


def test_an_odd_tag_beside_the_orientation_spoils_no_photograph(tmp_path: Path) -> None:
    """Written anew, as some programs that turn images do, it would be an error."""
    (tmp_path / "photo.jpg").write_bytes(with_odd_tag(6))
    assert open_image(tmp_path / "photo.jpg").size == (48, 64)


def test_an_exif_block_of_rubbish_does_not_matter(tmp_path: Path) -> None:
    Image.new("RGB", (20, 10), "red").save(tmp_path / "photo.jpg", exif=b"Exif\0\0XX*\0rubbish")
    assert open_image(tmp_path / "photo.jpg").size == (20, 10)


@pytest.mark.parametrize(
    ("size", "read"),
    [
        ((1600, 1200), (200, 150)),  # 1/8: as small as it gets
        ((1600, 1199), (400, 300)),  # 1/8 would be 149.9 high
        ((599, 300), (300, 150)),
        ((299, 299), (299, 299)),
        ((20, 10), (20, 10)),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("format", ["JPEG", "MPO"])
def test_a_jpeg_is_read_no_smaller_than_it_is_seen(
    tmp_path: Path, format: str, orientation: int, size: tuple[int, int], read: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size, "red").save(tmp_path / "photo", format, exif=exif)
    image = open_image(tmp_path / "photo", at_least=(120, 150))
    assert image.size == (read if orientation == 1 else read[::-1])
    assert min(image.size) >= min(150, *size)


def test_a_jpeg_read_small_shows_the_same(tmp_path: Path) -> None:
    """Compared at the size that is seen, pixel by pixel, in levels of 256."""
    photo = Path(__file__).parents[2] / "web" / "samples" / "cat.jpg"
    whole, small = open_image(photo), open_image(photo, at_least=(100, 100))
    assert small.width == (whole.width + 1) // 2
    seen = [
        np.asarray(image.resize((100, 100), Image.Resampling.BICUBIC), dtype=float)
        for image in (whole, small)
    ]
    assert np.abs(seen[0] - seen[1]).mean() < 2


def save_heic(path: Path, orientation: int = 1) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pillow_heif.from_pillow(Image.new("RGB", (64, 32), "red")).save(path, exif=exif.tobytes())


@pytest.mark.parametrize("orientation", [1, 6])
def test_heic_is_read_with_the_extra(tmp_path: Path, orientation: int) -> None:
    save_heic(tmp_path / "photo.heic", orientation)
    image = open_image(tmp_path / "photo.heic", at_least=(8, 8))
    assert (image.mode, image.size) == ("RGB", (64, 32) if orientation == 1 else (32, 64))
    assert image.getpixel((9, 9))[0] > 240


def test_heic_without_the_extra_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_heic(tmp_path / "photo.jpg")  # what it is called does not matter
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    monkeypatch.setattr(images, "_register_heif", lambda: False)
    with pytest.raises(DataError, match=r"photo\.jpg: HEIC.*captioning\[heic\]"):
        open_image(tmp_path / "photo.jpg")


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_is_white(mode: str) -> None:
    assert to_rgb(Image.new(mode, (4, 4))).getpixel((0, 0)) == (255, 255, 255)


def test_a_transparent_palette_colour_is_white() -> None:
    image = Image.new("P", (4, 4))
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.putpixel((1, 0), 1)
    image.info["transparency"] = 0
    rgb = to_rgb(image)
    assert rgb.getpixel((0, 0)) == (255, 255, 255)
    assert rgb.getpixel((1, 0)) == (255, 0, 0)


@pytest.mark.parametrize("mode", ["I;16", "I"])
def test_sixteen_bits_are_scaled_not_clipped(mode: str) -> None:
    assert to_rgb(Image.new(mode, (4, 4), 257 * 128)).getpixel((0, 0)) == (128, 128, 128)
