"""Files that somebody could send: odd ones that are photographs all the same, broken ones, and
those made to do harm. Each has its outcome: the size that is kept, or the code of a refusal."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from tests.factories import encoded, photo

Outcome = tuple[int, int] | str
File = tuple[str, bytes, Outcome]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "HEIF")
UNSUPPORTED, UNREADABLE = "unsupported_image_type", "image_unreadable"
PIXELS, EMPTY, LARGE = "image_too_many_pixels", "image_empty", "image_too_large"
SIZE = (64, 48)
PLAIN = Image.new("RGB", SIZE, "teal")
SCRIPT = b"<script>alert(document.cookie)</script>"


def corpus() -> list[File]:
    """Names are unique."""
    parts = (_odd, _animated, _oriented, _polyglots, _no_images, _cut_off, _damaged, _bombs)
    return [file for part in parts for file in part()]


def noise(size: tuple[int, int] = (160, 120), mode: str = "RGB") -> Image.Image:
    """Something that does not compress, so that a cut hits pixels."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    wanted = size[0] * size[1] * channels
    blocks = (hashlib.sha256(str(i).encode()).digest() for i in range(wanted // 32 + 1))
    return Image.frombytes(mode, size, b"".join(blocks)[:wanted])


def png(
    width: int, height: int, depth: int, colour: int, rows: bytes, *extra: tuple[bytes, bytes]
) -> bytes:
    """A PNG with any header and further chunks before its pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = b"".join(png_chunk(kind, payload) for kind, payload in extra)
    pixels = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + body + pixels


def with_odd_tag(orientation: int) -> bytes:
    """A JPEG of 64 x 48 whose EXIF has a resolution in words."""
    entries = [(0x0112, 3, 1, struct.pack("<HH", orientation, 0)), (0x011A, 2, 4, b"abc\0")]
    tiff = b"II*\0" + struct.pack("<IH", 8, len(entries))
    tiff += b"".join(struct.pack("<HHI", *head) + value for *head, value in entries)
    return with_segment(encoded(PLAIN, "JPEG"), 0xE1, b"Exif\0\0" + tiff + bytes(4))


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + payload))
    return struct.pack(">I", len(payload)) + kind + payload + checksum


def with_segment(jpeg: bytes, marker: int, payload: bytes) -> bytes:
    """A JPEG with one more segment at its beginning."""
    segment = bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload
    return jpeg[:2] + segment + jpeg[2:]


def _odd() -> Iterator[File]:
    for format in FORMATS:
        yield f"plain {format}", photo(format=format), SIZE
        yield f"one pixel {format}", photo((1, 1), format=format), (1, 1)
    yield "wide", photo((9000, 1)), (1024, 1)
    yield "tall", photo((1, 9000)), (1, 1024)
    yield "cmyk", photo(mode="CMYK", colour=(0, 255, 255, 0)), SIZE
    yield "grey", photo(mode="L", colour=90), SIZE
    yield "progressive", photo(progressive=True), SIZE
    yield "lossless webp", photo(format="WEBP", lossless=True), SIZE
    yield "multi picture", encoded(PLAIN, "MPO", save_all=True, append_images=[PLAIN]), SIZE
    yield "one bit", photo(mode="1", colour=1, format="PNG"), SIZE
    yield "palette", photo(mode="P", colour=1, format="PNG"), SIZE
    yield "palette, one clear", photo(mode="P", colour=1, format="PNG", transparency=1), SIZE
    alphas = b"\0\x80" * 9
    yield "palette of alphas", photo(mode="P", colour=1, format="PNG", transparency=alphas), SIZE
    yield "clear gif", photo(mode="P", colour=1, format="GIF", transparency=1), SIZE
    yield "grey and alpha", photo(mode="LA", colour=(9, 9), format="PNG"), SIZE
    yield "alpha", photo(mode="RGBA", colour=(9, 9, 9, 9), format="PNG"), SIZE
    yield "16 bit grey", encoded(Image.new("I;16", SIZE, 40_000), "PNG"), SIZE
    row = b"\0" + b"\x80\x00" * 24
    yield "16 bit colour", png(8, 8, 16, 2, row * 8), (8, 8)
    row = b"\0" + b"\x80\x00" * 8
    yield "16 bit grey, one clear", png(8, 8, 16, 0, row * 8, (b"tRNS", b"\0\0")), (8, 8)


def _animated() -> Iterator[File]:
    frames = [Image.new("RGB", SIZE, (shade, 0, 0)) for shade in range(0, 250, 5)]
    for format in ("GIF", "WEBP", "PNG", "AVIF"):
        data = encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=20)
        yield f"animated {format}", data, SIZE


def _oriented() -> Iterator[File]:
    for orientation in range(10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        lying = (48, 64) if 5 <= orientation <= 8 else SIZE
        yield f"orientation {orientation}", photo(exif=exif.tobytes()), lying


def _polyglots() -> Iterator[File]:
    """What a browser or an archiver could take for something else is kept as pixels only."""
    tails = {"zip": b"PK\x03\x04" + bytes(99), "php": b"<?php system($_GET[0]); ?>", "html": SCRIPT}
    for name, tail in tails.items():
        for format in ("JPEG", "PNG", "GIF", "WEBP"):
            yield f"{format} and {name}", photo(format=format) + tail, SIZE
    yield "script in a comment", photo(comment=SCRIPT), SIZE
    yield "script in a gif's comment", photo(format="GIF", comment=b"*/=1;alert(1);//"), SIZE
    row = b"\0" + b"\x7f" * 24
    text = (b"tEXt", b"Comment\0" + SCRIPT)
    yield "script in a png's text", png(8, 8, 8, 2, row * 8, text), (8, 8)
    entities = (
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><x:xmpmeta>&b;</x:xmpmeta>'
    )
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + entities
    yield "entities in xmp", with_segment(photo(), 0xE1, xmp), SIZE
    yield "exif of nonsense", with_segment(photo(), 0xE1, b"Exif\0\0" + b"\xff" * 500), SIZE
    yield (
        "profile of nonsense",
        with_segment(photo(), 0xE2, b"ICC_PROFILE\0\x01\x01" + SCRIPT),
        SIZE,
    )
    yield "png called jpg.jpg", photo(format="PNG"), SIZE
    yield "html before the jpeg", SCRIPT + photo(), UNSUPPORTED
    yield "pdf before the jpeg", b"%PDF-1.7\n" + photo(), UNSUPPORTED


def _no_images() -> Iterator[File]:
    texts = {
        "text": b"Once upon a time.\n" * 99,
        "html": b"<!doctype html>" + SCRIPT,
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'>" + SCRIPT + b"</svg>",
        "svg that reads": b'<!DOCTYPE s [<!ENTITY f SYSTEM "file:///etc/passwd">]><svg>&f;</svg>',
        "imagemagick": b"push graphic-context\nfill 'url(https://x/\"|id; \")'",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n(/etc/passwd) (r) file",
        "pdf": b"%PDF-1.7\n1 0 obj <</JS (app.alert(1))>>",
        "zip": b"PK\x03\x04" + bytes(500),
        "gzip": b"\x1f\x8b\x08\0" + bytes(500),
        "program": b"\x7fELF\x02\x01\x01" + bytes(500),
        "video": b"\0\0\0\x20ftypisom" + bytes(500),
        "photoshop": b"8BPS\0\x01" + bytes(500),
        "zeros": bytes(5000),
        "one byte": b"\0",
    }
    for name, data in texts.items():
        yield name, data, UNSUPPORTED
    for format in ("BMP", "TIFF", "ICO", "PPM", "TGA", "PCX", "JPEG2000", "DDS"):
        yield f"unwanted {format}", photo(format=format), UNSUPPORTED
    yield "nothing", b"", EMPTY
    yield "too large", photo() + bytes(20_000_000), LARGE


def _cut_off() -> Iterator[File]:
    """The beginning of a file is too little to know its type by."""
    magics = {
        "JPEG": b"\xff\xd8\xff",
        "PNG": b"\x89PNG\r\n\x1a\n",
        "GIF": b"GIF89a",
        "WEBP": b"RIFF\x10\0\0\0WEBPVP8 ",
        "AVIF": b"\0\0\0\x18ftypavif",
        "HEIF": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
    }
    for format in FORMATS:
        yield f"{format} of its magic alone", magics[format], UNSUPPORTED
        whole = encoded(noise(), format)
        for percent in (50, 75, 90, 97):
            cut = whole[: len(whole) * percent // 100]
            # Their libraries look at the whole file before they say what it is.
            late = format in ("AVIF", "WEBP")
            yield f"{format} cut off at {percent}%", cut, UNSUPPORTED if late else UNREADABLE


def _damaged() -> Iterator[File]:
    row = b"\0" + b"\x7f" * 24
    whole = png(8, 8, 8, 2, row * 8)
    yield "png of a wrong checksum", whole[:-16] + b"\0\0\0\0" + whole[-12:], (8, 8)
    yield "png without pixels", png(8, 8, 8, 2, b""), UNREADABLE
    yield "png of no size", png(0, 0, 8, 2, b""), UNSUPPORTED
    yield "png of an unknown kind", png(8, 8, 7, 5, row * 8), UNSUPPORTED
    jpeg = photo()
    yield "jpeg without pixels", jpeg[: jpeg.index(b"\xff\xda")] + b"\xff\xd9", UNREADABLE
    yield "jpeg of nonsense", b"\xff\xd8\xff\xe0" + bytes(5000), UNSUPPORTED


def _bombs() -> Iterator[File]:
    for width, height in ((8000, 6250), (50_000, 50_000), (2**31 - 1, 2**31 - 1), (40_000_001, 1)):
        yield f"png of {width} x {height}", png(width, height, 8, 2, bytes(1000)), PIXELS
    gif = bytearray(photo(format="GIF"))
    gif[6:10] = struct.pack("<HH", 65535, 65535)
    yield "gif of 65535 x 65535", bytes(gif), PIXELS
    frame = bytearray(photo((16, 16), format="GIF"))
    descriptor = frame.index(b"\x2c\0\0\0\0")
    frame[descriptor + 5 : descriptor + 9] = struct.pack("<HH", 65535, 65535)
    yield "gif of a large frame", bytes(frame), PIXELS
    jpeg = bytearray(photo())
    start = jpeg.index(b"\xff\xc0")
    jpeg[start + 5 : start + 9] = struct.pack(">HH", 65500, 65500)
    yield "jpeg of 65500 x 65500", bytes(jpeg), PIXELS
    still = Image.new("RGBA", (16, 16), (1, 2, 3, 4))
    webp = bytearray(encoded(still, "WEBP", exif=Image.Exif().tobytes()))
    canvas = webp.index(b"VP8X") + 12
    webp[canvas : canvas + 6] = (16_000).to_bytes(3, "little") * 2
    yield "webp of a large canvas", bytes(webp), PIXELS
    scans = encoded(noise(), "JPEG", progressive=True)
    last = scans[scans.rindex(b"\xff\xda") : -2]
    yield "jpeg of 1000 scans", scans[:-2] + last * 1000 + b"\xff\xd9", UNREADABLE
    row = b"\0" + b"\x7f" * 24
    text = (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9))
    yield "png of a huge text", png(8, 8, 8, 2, row * 8, text), UNSUPPORTED
    profile = (b"iCCP", b"p\0\0" + zlib.compress(bytes(100_000_000), 9))
    yield "png of a huge profile", png(8, 8, 8, 2, row * 8, profile), UNSUPPORTED
    yield "png of too many pixels", png(8, 8, 8, 2, row * 8 + bytes(50_000_000)), (8, 8)
