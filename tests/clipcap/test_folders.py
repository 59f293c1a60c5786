"""Folders of photographs: which are found, and how they go through the model."""

from __future__ import annotations

import os
import shutil
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from clipcap import Caption, Captioner, DataError
from clipcap.files import caption_files
from clipcap.folders import find_photos


def found_in(folder: Path) -> list[str]:
    """All that is found, as it lies in the folder. Nothing may fail."""
    failures: list[DataError] = []
    found = [
        os.fsdecode(path.relative_to(folder)) for path in find_photos([folder], failures.append)
    ]
    assert failures == []
    return found


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_photographs_come_by_name_and_nothing_else_does(tmp_path: Path) -> None:
    touch(tmp_path, "b.JPG", "a/z.png", "a/b/c.heic", "c.webp", "notes.txt", "jpg", "d.jpg.part")
    touch(tmp_path, ".hidden.jpg", ".thumbnails/1.jpg", "._b.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    assert found_in(tmp_path) == ["a/b/c.heic", "a/z.png", "b.JPG", "c.webp"]


def test_a_file_is_taken_at_its_word(tmp_path: Path) -> None:
    paths = [tmp_path / "no-suffix", tmp_path / "missing.jpg"]
    touch(tmp_path, "no-suffix")
    assert list(find_photos(paths, pytest.fail)) == paths


def test_links_to_files_are_followed_and_links_to_folders_are_not(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "2.jpg").symlink_to(tmp_path / "a" / "1.jpg")
    assert found_in(tmp_path) == ["2.jpg", "a/1.jpg"]
    (tmp_path / "a" / "again").rename(tmp_path / "linked")
    assert found_in(tmp_path / "linked") == ["2.jpg", "a/1.jpg"]


def test_a_link_that_leads_nowhere_is_tried(tmp_path: Path) -> None:
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle.jpg").symlink_to(tmp_path / "circle.jpg")
    assert found_in(tmp_path) == ["circle.jpg", "gone.jpg"]


def test_a_folder_that_cannot_be_read_is_reported_and_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2/2.jpg", "3.jpg")
    failures: list[DataError] = []
    photos = find_photos([tmp_path], failures.append)
    assert next(photos).name == "1.jpg"
    shutil.rmtree(tmp_path / "2")
    assert [path.name for path in photos] == ["3.jpg"]
    assert [str(error) for error in failures] == [f"{tmp_path / '2'}: No such file or directory"]


class StandIn:
    """Captions photographs by their width, and counts the pixels that are alive."""

    image_size = (8, 8)

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.alive = self.most_alive = 0
        self._lock = threading.Lock()

    def preprocess(self, image: Image.Image) -> Tensor:
        pixels = torch.tensor([float(image.width)])
        with self._lock:
            self.alive += 1
            self.most_alive = max(self.alive, self.most_alive)
        weakref.finalize(pixels, self._forget)
        return pixels

    def _forget(self) -> None:
        with self._lock:
            self.alive -= 1

    def caption_pixels(self, pixels: Sequence[Tensor], options: object) -> list[list[Caption]]:
        self.batches.append(len(pixels))
        return [[Caption(str(int(width)), 0.0)] for width in pixels]


def run(paths: Any, captioner: Any, batch_size: int) -> Iterator[tuple[Path, str | DataError]]:
    for path, found in caption_files(captioner, paths, batch_size=batch_size):
        yield path, found if isinstance(found, DataError) else found[0].text


def test_captions_come_in_order_in_batches_with_failures_between(tmp_path: Path) -> None:
    paths = [tmp_path / f"{width}.png" for width in range(1, 12)]
    for width, path in enumerate(paths, start=1):
        Image.new("L", (width, 1)).save(path)
    paths[4].write_text("no image")
    paths[8].unlink()
    captioner = StandIn()

    found = list(run(paths, captioner, 4))

    assert [path for path, _ in found] == paths
    for width, (path, text) in enumerate(found, start=1):
        if path in (paths[4], paths[8]):
            assert isinstance(text, DataError)
            assert str(path) in str(text)
        else:
            assert text == str(width)
    assert captioner.batches == [4, 3, 2]


def test_a_batch_of_failures_asks_nothing_of_the_model(
    captioner: Captioner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(pixels: object) -> Tensor:
        raise AssertionError("there is nothing to encode")

    monkeypatch.setattr(captioner, "encode", encode)
    found = list(run([tmp_path / "a.png", tmp_path / "b.png"], captioner, 2))
    assert len(found) == 2
    assert all(isinstance(text, DataError) for _, text in found)


def test_what_is_held_does_not_grow_with_the_folder(tmp_path: Path) -> None:
    batch_size, folders, in_each = 8, 20, 100
    Image.new("L", (3, 1)).save(tmp_path / "photo", "PNG")
    for folder in range(folders):
        (tmp_path / f"{folder:02}").mkdir()
        for number in range(in_each):
            os.link(tmp_path / "photo", tmp_path / f"{folder:02}" / f"{number:02}.png")
    captioner = StandIn()
    walked = captioned = furthest_ahead = 0

    def walk() -> Iterator[Path]:
        nonlocal walked
        for path in find_photos([tmp_path], pytest.fail):
            walked += 1
            yield path

    for _, text in run(walk(), captioner, batch_size):
        assert text == "3"
        furthest_ahead = max(furthest_ahead, walked - captioned)
        captioned += 1

    assert captioned == folders * in_each
    assert furthest_ahead <= 2 * batch_size + 1
    assert captioner.most_alive <= 3 * batch_size + 1
    assert captioner.alive <= batch_size


def test_stopping_early_leaves_no_thread_behind(tmp_path: Path) -> None:
    Image.new("L", (3, 1)).save(tmp_path / "photo.png")
    before = threading.active_count()
    captioned = caption_files(StandIn(), [tmp_path / "photo.png"] * 1000, batch_size=2)
    next(captioned)
    captioned.close()
    assert threading.active_count() == before
