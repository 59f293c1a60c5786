"""Fill in the alt texts that a static site lacks: python markdown_site.py FOLDER

Every `![](photo.jpg)` of a local photograph becomes `![A dog on a beach.](photo.jpg)`. What has an
alt text keeps it, so it can run before each build, and an editor's better words stay.
"""

import os
import re
import sys
from pathlib import Path

from captioning import Client

URL = os.environ.get("CAPTIONING_URL", "http://127.0.0.1:8000")
WITHOUT_ALT = re.compile(r"!\[\]\((?P<target>[^()\s]+)(?P<title>\s+\"[^\"]*\")?\)")
CODE = re.compile(r"(```.*?```|~~~.*?~~~|`[^`\n]*`)", re.DOTALL)


def main(folder: str) -> int:
    pages = {page: page.read_bytes().decode() for page in Path(folder).rglob("*.md")}
    photos = sorted({photo for page, text in pages.items() for photo in wanted(page, text)})
    captions = {}
    with Client(URL) as client:
        for photo, outcome in zip(photos, client.caption_many(photos, max_words=25), strict=True):
            if outcome.error:
                print(f"{photo}: {outcome.error}", file=sys.stderr)
            else:
                captions[photo] = outcome.text
    for page, text in pages.items():
        filled = fill(page, text, captions)
        if filled != text:
            page.write_bytes(filled.encode())  # with the line ends that it has
    return 0 if len(captions) == len(photos) else 1


def wanted(page: Path, text: str) -> list[Path]:
    prose = CODE.sub("", text)
    found = (photo_of(page, match["target"]) for match in WITHOUT_ALT.finditer(prose))
    return [photo for photo in found if photo.is_file()]


def photo_of(page: Path, target: str) -> Path:
    return (page.parent / target).resolve()


def fill(page: Path, text: str, captions: dict[Path, str]) -> str:
    def with_alt(match: re.Match[str]) -> str:
        caption = captions.get(photo_of(page, match["target"]))
        if caption is None:
            return match[0]
        alt = re.sub(r"([\[\]\\])", r"\\\1", caption)
        return f"![{alt}]({match['target']}{match['title'] or ''})"

    # Every second part is code, which shows Markdown and is none.
    parts = CODE.split(text)
    parts[::2] = [WITHOUT_ALT.sub(with_alt, prose) for prose in parts[::2]]
    return "".join(parts)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
