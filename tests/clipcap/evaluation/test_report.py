"""What `clipcap evaluate` writes: a page that needs nothing beside it, and JSON."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from clipcap.cli import main
from clipcap.data import Example
from clipcap.data.pictures import ImageFile
from clipcap.evaluation.results import caption_results
from tests.clipcap.data.sets import coco, write_image, write_json
from tests.tiny_bundle import COLOURS, build_colour_data


@pytest.fixture
def spoilt(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The tiny model, cut off after a token: a worse captioner."""
    folder = Path(shutil.copytree(tiny_bundle, tmp_path / "spoilt"))
    config = json.loads((folder / "bundle.json").read_text())
    config["name"] = "spoilt <script>"
    config["decoding"]["max_tokens"] = 1
    (folder / "bundle.json").write_text(json.dumps(config))
    return folder


def evaluate(*arguments: object) -> Result:
    done = CliRunner().invoke(main, ["evaluate", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done


class Page(HTMLParser):
    """Counts tags and keeps what the tests look at."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag not in {"meta"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_shows_images_with_captions_and_references(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    data = build_colour_data(tmp_path / "data")
    evaluate(tiny_bundle, data, "--report", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    page = Page(text)

    assert page.open == []
    assert len(page.images) == 6  # 2 worst, 2 median, 2 best of 8
    for image in page.images:
        assert re.fullmatch(r"The photograph \w+-2\.png", image["alt"] or "")
        head, _, content = (image["src"] or "").partition(",")
        assert head == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(content))).size == (42, 30)
    said = re.findall(r"<strong>(.*?)</strong>", text)
    assert len(said) == 6
    assert all(any(colour in caption for colour in COLOURS) for caption in said)
    assert "<li>a plain" in text
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)  # nothing is fetched


def test_two_bundles_are_compared_on_the_same_images(
    tiny_bundle: Path, spoilt: Path, tmp_path: Path
) -> None:
    data = build_colour_data(tmp_path / "data")
    done = evaluate(
        tiny_bundle, data, "--against", spoilt, "--report", tmp_path / "r.html",
        "--json", tmp_path / "s.json",
    )  # fmt: skip
    found = json.loads((tmp_path / "s.json").read_text())
    difference = found["differences"]["rouge_l"]
    assert difference["value"] == pytest.approx(found["rouge_l"] - found["against"]["rouge_l"])
    assert 0 < difference["low"] <= difference["value"] <= difference["high"]
    assert difference["share_above"] == 1
    assert "better in 100.0 % of the resamples" in done.stdout
    low, high = found["intervals"]["rouge_l"].values()
    assert low <= found["rouge_l"] <= high
    text = (tmp_path / "r.html").read_text()
    assert Page(text).open == []
    assert "spoilt &lt;script&gt;" in text
    assert "<script" not in text


def test_captions_are_written_as_coco_reads_them(tiny_bundle: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "1.png", "red")
    write_image(tmp_path / "2.png", "blue")
    data = write_json(tmp_path / "c.json", coco({"1.png": ["red"], "2.png": ["blue"]}, first_id=7))
    evaluate(tiny_bundle, data, "--results", tmp_path / "results.json")
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [(row["image_id"], row["file_name"]) for row in rows] == [(7, "1.png"), (8, "2.png")]
    assert "red" in rows[0]["caption"]


def test_an_image_without_a_number_is_known_by_its_name() -> None:
    example = Example(ImageFile(Path("a.jpg"), "a.jpg"), ("x",))
    assert caption_results([example], ["y"]) == [{"file_name": "a.jpg", "caption": "y"}]


def test_what_is_left_out_is_said(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = evaluate(tiny_bundle, build_colour_data(tmp_path / "data"), "--java")
    assert "METEOR    left out: Java is not installed" in done.stdout
    assert "SPICE     left out: " in done.stdout
