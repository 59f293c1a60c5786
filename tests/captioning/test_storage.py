"""The image store on a folder. Its errors are ours, also where the folder is not to be had."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from captioning.errors import ImageNotFound, StorageUnavailable
from captioning.storage import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage((tmp_path / "storage").as_uri())


def test_what_was_put_is_got(storage: Storage, tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    storage.put("images/a.jpg", data)
    assert storage.get("images/a.jpg") == data
    assert (tmp_path / "storage" / "images" / "a.jpg").read_bytes() == data


def test_putting_again_replaces(storage: Storage) -> None:
    storage.put("images/a.jpg", b"old and longer")
    storage.put("images/a.jpg", b"new")
    assert storage.get("images/a.jpg") == b"new"


def test_an_empty_object_is_an_object(storage: Storage) -> None:
    storage.put("images/a.jpg", b"")
    assert storage.get("images/a.jpg") == b""


def test_a_missing_key_is_not_found(storage: Storage) -> None:
    storage.put("images/a.jpg", b"x")
    with pytest.raises(ImageNotFound, match=r"images/none\.jpg"):
        storage.get("images/none.jpg")


@pytest.mark.parametrize("there", [[], ["storage"], ["storage", "storage/probe"]])
def test_a_disk_that_is_not_mounted_is_away_and_not_without_this_image(
    storage: Storage, tmp_path: Path, there: list[str]
) -> None:
    """Or every job would fail for good. Nor is the folder made by whoever only reads."""
    for name in there:  # where it is to be mounted; what asks whether all is well may write there
        (tmp_path / name).touch() if "/" in name else (tmp_path / name).mkdir()
    with pytest.raises(StorageUnavailable, match="nothing in"):
        storage.get("images/a.jpg")
    assert storage.is_away()
    assert (tmp_path / "storage").exists() == bool(there)


def test_a_store_that_has_not_this_object_is_not_away(storage: Storage) -> None:
    storage.try_writing()
    assert storage.is_away()
    storage.put("images/a.jpg", b"x")
    assert not storage.is_away()


def test_deleting_is_final_and_may_be_repeated(storage: Storage, tmp_path: Path) -> None:
    for name in "abc":
        storage.put(f"images/{name}.jpg", b"x")
    storage.delete(["images/a.jpg", "images/none.jpg", "images/b.jpg"])
    storage.delete(["images/a.jpg", "images/b.jpg"])
    assert files(tmp_path) == ["c.jpg"]


def test_nothing_is_made_before_first_use(tmp_path: Path) -> None:
    Storage((tmp_path / "storage").as_uri())
    assert list(tmp_path.iterdir()) == []


def test_what_was_put_is_flushed_with_its_name(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No test can cut the power: it watches what is handed to fsync, and when."""
    flushed = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        flushed.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    storage.put("images/a.jpg", b"x")
    root = tmp_path / "storage"
    assert flushed == [root / "images" / "a.jpg", root / "images", root]

    flushed.clear()
    storage.put("images/b.jpg", b"x")  # the folder has its name on the disk already
    assert flushed == [root / "images" / "b.jpg", root / "images"]


def test_several_are_put_at_once(tmp_path: Path) -> None:
    meeting = threading.Barrier(2)

    class Meeting(Storage):
        def put(self, key: str, data: bytes) -> None:
            meeting.wait(30)
            super().put(key, data)

    storage = Meeting((tmp_path / "storage").as_uri())
    storage.put_all({"images/a.jpg": b"a", "thumbnails/a.jpg": b"b"})
    assert storage.get("images/a.jpg") == b"a"
    assert storage.get("thumbnails/a.jpg") == b"b"


def test_of_several_none_is_under_way_when_one_has_failed(tmp_path: Path) -> None:
    failed = threading.Event()
    ended: list[str] = []

    class Failing(Storage):
        def put(self, key: str, data: bytes) -> None:
            if key == "1":
                failed.set()
                raise StorageUnavailable("The disk is full.")
            assert failed.wait(30)
            time.sleep(0.1)
            ended.append(key)

    storage = Failing((tmp_path / "storage").as_uri())
    with pytest.raises(StorageUnavailable, match="full"):
        storage.put_all({str(number): b"" for number in range(500)})
    then = len(ended)
    assert 1 <= then < 499
    time.sleep(0.3)
    assert len(ended) == then


def test_an_object_store_has_no_end() -> None:
    assert Storage("s3://bucket").free_bytes() is None


def test_a_reader_never_sees_half_an_object(storage: Storage) -> None:
    versions = [bytes([value]) * 2_000_000 for value in range(2)]
    storage.put("images/a.jpg", versions[0])
    done = threading.Event()

    def rewrite() -> None:
        for turn in range(30):
            storage.put("images/a.jpg", versions[turn % 2])
        done.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    seen = {storage.get("images/a.jpg") for _ in range(10)}
    while not done.is_set():
        seen.add(storage.get("images/a.jpg"))
    writer.join()
    assert seen <= set(versions)


def test_nothing_temporary_is_left(storage: Storage, tmp_path: Path) -> None:
    for turn in range(5):
        storage.put("images/a.jpg", b"x" * turn)
    assert files(tmp_path) == ["a.jpg"]


@pytest.mark.parametrize("act", ["put", "get", "delete"])
def test_a_folder_that_cannot_be_made_is_unavailable_in_one_line(act: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    storage = Storage((tmp_path / "file" / "storage").as_uri())
    with pytest.raises(StorageUnavailable) as caught:
        attempt(storage, act)
    assert "\n" not in str(caught.value)


def test_a_folder_in_the_place_of_an_object_is_unavailable(
    storage: Storage, tmp_path: Path
) -> None:
    (tmp_path / "storage" / "images" / "a.jpg" / "inside").mkdir(parents=True)
    with pytest.raises(StorageUnavailable):
        storage.put("images/a.jpg", b"x")


@pytest.mark.parametrize("url", ["foo://x/y", "s3://"])
@pytest.mark.parametrize("act", ["put", "get", "delete"])
def test_a_store_that_nobody_knows_is_unavailable(url: str, act: str) -> None:
    with pytest.raises(StorageUnavailable):
        attempt(Storage(url), act)


def test_a_store_that_was_away_is_found_when_it_is_back(tmp_path: Path) -> None:
    in_the_way = tmp_path / "disk"
    in_the_way.write_text("not mounted")
    storage = Storage((in_the_way / "storage").as_uri())
    with pytest.raises(StorageUnavailable):
        storage.put("images/a.jpg", b"x")
    in_the_way.unlink()
    storage.put("images/a.jpg", b"x")
    assert storage.get("images/a.jpg") == b"x"


def attempt(storage: Storage, act: str) -> None:
    if act == "put":
        storage.put("images/a.jpg", b"x")
    elif act == "get":
        storage.get("images/a.jpg")
    else:
        storage.delete(["images/a.jpg"])


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())
