"""Every format is told from what is there and read into the same examples."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from clipcap.data import Example, read_evaluation_set, read_splits
from clipcap.data.check import check
from clipcap.data.pictures import TarMember
from clipcap.errors import DataError
from tests.clipcap.data.sets import (
    coco,
    karpathy,
    karpathy_image,
    picture,
    write_folder,
    write_image,
    write_json,
    write_shard,
)


def said(examples: list[Example]) -> dict[str, tuple[str, ...]]:
    return {example.image.name: example.captions for example in examples}


@pytest.fixture
def karpathy_set(tmp_path: Path) -> Path:
    images = [
        karpathy_image("1.jpg", "train", 11, "a cat"),
        karpathy_image("2.jpg", "restval", 12, "a dog", "a hound"),
        karpathy_image("3.jpg", "val", 13, "a bird"),
        karpathy_image("4.jpg", "test", 14, "a fish"),
    ]
    for number in range(1, 5):
        write_image(tmp_path / "val2014" / f"{number}.jpg")
    write_json(tmp_path / "dataset_coco.json", karpathy(images))
    return tmp_path


def test_karpathys_restval_is_trained_on_and_test_is_kept_apart(karpathy_set: Path) -> None:
    splits = read_splits(karpathy_set, held_out=0.1, seed=0)
    assert said(splits.train) == {
        "val2014/1.jpg": ("a cat",),
        "val2014/2.jpg": ("a dog", "a hound"),
    }
    assert said(splits.dev) == {"val2014/3.jpg": ("a bird",)}
    (test,) = read_evaluation_set(karpathy_set, "test")
    assert (test.image_id, test.captions) == (14, ("a fish",))
    assert test.image.open().size == (8, 6)


def test_of_karpathys_splits_those_that_there_are_count(tmp_path: Path) -> None:
    images = [karpathy_image(f"{i}.jpg", "train", i, "a cat") for i in range(10)]
    for number in range(10):
        write_image(tmp_path / "val2014" / f"{number}.jpg", (number, 0, 0))
    write_json(tmp_path / "dataset_mine.json", karpathy(images))
    splits = read_splits(tmp_path, held_out=0.2, seed=0)
    assert (len(splits.train), len(splits.dev)) == (8, 2)
    assert check(tmp_path, lambda caption: False).problems == []


def test_an_archive_of_the_images_is_not_taken_for_shards(karpathy_set: Path) -> None:
    before = read_evaluation_set(karpathy_set)
    write_json(karpathy_set / "dataset_infos.json", {"default": {}})  # nor is this Karpathy's
    write_shard(karpathy_set / "flickr30k-images.tar", {"1.jpg": picture()})
    assert read_evaluation_set(karpathy_set) == before


def test_shards_may_lie_beside_what_is_said_of_them(tmp_path: Path) -> None:
    write_shard(tmp_path / "00000.tar", {"1.png": picture(), "1.txt": b"a dog"})
    write_json(tmp_path / "dataset_info.json", {"features": {}})
    assert len(read_evaluation_set(tmp_path)) == 1
    (tmp_path / "00000.tar").unlink()
    with pytest.raises(DataError, match=r"dataset_info\.json: not Karpathy's format"):
        read_evaluation_set(tmp_path)


def test_karpathys_file_can_be_named_itself(karpathy_set: Path) -> None:
    by_file = read_evaluation_set(karpathy_set / "dataset_coco.json")
    assert by_file == read_evaluation_set(karpathy_set)
    another = json.loads((karpathy_set / "dataset_coco.json").read_text())
    write_json(karpathy_set / "dataset_flickr8k.json", another)
    with pytest.raises(DataError, match=r"dataset_coco\.json, dataset_flickr8k\.json: name the"):
        read_evaluation_set(karpathy_set)


def test_coco_captions_are_found_with_their_images(tmp_path: Path) -> None:
    annotations = tmp_path / "annotations"
    write_json(
        annotations / "captions_train2014.json", coco({"1.jpg": ["a cat", "a kitten"]}, first_id=1)
    )
    write_json(annotations / "captions_val2014.json", coco({"2.jpg": ["a dog"]}, first_id=2))
    write_image(tmp_path / "train2014" / "1.jpg")
    write_image(tmp_path / "images" / "val2014" / "2.jpg")

    splits = read_splits(tmp_path, held_out=0.1, seed=0)

    assert said(splits.train) == {"1.jpg": ("a cat", "a kitten")}
    assert said(splits.dev) == {"2.jpg": ("a dog",)}
    assert splits.dev[0].image_id == 2
    (named,) = read_evaluation_set(annotations / "captions_val2014.json")
    assert named == splits.dev[0]


def test_shards_are_read_without_unpacking(tmp_path: Path) -> None:
    write_shard(
        tmp_path / "00000.tar",
        {
            "000.jpg": picture("red", (9, 5)),
            "000.txt": b"a red thing",
            "000.json": json.dumps({"caption": "a red thing", "key": "000"}).encode(),
            "in/a.folder/001.png": picture("blue"),
            "in/a.folder/001.json": json.dumps({"captions": ["blue", "all blue"]}).encode(),
        },
    )
    write_shard(tmp_path / "00001.tar", {"002.txt": b"green", "002.jpg": picture("green")})
    write_shard(tmp_path / "00002.tar", {"003.jpg": picture("white"), "003.txt": b""})
    before = sorted(tmp_path.iterdir())

    examples = read_evaluation_set(tmp_path)

    assert said(examples) == {
        "000.jpg": ("a red thing",),
        "in/a.folder/001.png": ("blue", "all blue"),
        "002.jpg": ("green",),
    }
    assert [example.image.open().size for example in examples] == [(9, 5), (8, 6), (8, 6)]
    assert [example.image.open().getpixel((0, 0)) for example in examples] == [
        (255, 0, 0),
        (0, 0, 255),
        (0, 128, 0),
    ]
    assert sorted(tmp_path.iterdir()) == before


def test_an_image_in_a_shard_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", {"7.jpg": b"no image", "7.txt": b"a cat"})
    (example,) = read_evaluation_set(shard)
    with pytest.raises(DataError, match=r"0\.tar, 7\.jpg: cannot be read as an image"):
        example.image.open()


def test_an_image_of_a_shard_has_a_stamp_that_follows_the_shard(tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", {"7.jpg": picture(), "8.jpg": picture()})
    one, other = (TarMember(shard, f"{name}.jpg", 512, 10) for name in (7, 8))
    assert one.stamp() != other.stamp()
    assert one.stamp() == TarMember(shard, "7.jpg", 512, 10).stamp()


def test_a_cut_or_compressed_shard_is_refused_by_name(tmp_path: Path) -> None:
    whole = write_shard(tmp_path / "whole.tar", {"7.png": picture(), "7.txt": b"x" * 5000})
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "text.tar").write_bytes(b"no tar at all" * 100)
    for name in ("cut.tar", "text.tar"):
        with pytest.raises(DataError, match=rf"{name}: not a whole, uncompressed tar"):
            read_evaluation_set(tmp_path / name)


def test_folders_hold_any_format_each(tmp_path: Path) -> None:
    write_shard(tmp_path / "train" / "0.tar", {"7.png": picture(), "7.txt": b"a cat"})
    write_folder(tmp_path / "dev", {"1.png": ["a dog"]})
    write_folder(tmp_path / "test", {"2.png": ["a bird"]})
    splits = read_splits(tmp_path, held_out=0.1, seed=0)
    assert said(splits.train) == {"7.png": ("a cat",)}
    assert said(splits.dev) == {"1.png": ("a dog",)}
    assert said(read_evaluation_set(tmp_path, "test")) == {"2.png": ("a bird",)}


def test_where_there_is_no_dev_a_share_of_train_is_held_out(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {f"{i}.png": ["a cat"] for i in range(10)})
    splits = read_splits(tmp_path, held_out=0.2, seed=0)
    assert (len(splits.train), len(splits.dev)) == (8, 2)


def test_what_was_looked_for_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"looked for metadata\.jsonl, dataset\*\.json, captions"):
        read_evaluation_set(tmp_path)
    with pytest.raises(DataError, match="no such file or folder"):
        read_evaluation_set(tmp_path / "nowhere")


def test_a_split_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    write_folder(tmp_path / "dev", {"1.png": ["a dog"]})
    with pytest.raises(DataError, match=r"no test split; folders with dev"):
        read_evaluation_set(tmp_path, "test")
    with pytest.raises(DataError, match=r"folders with dev, but no train"):
        read_splits(tmp_path, held_out=0.1, seed=0)
    with pytest.raises(DataError, match=r"no test split; image folder with no splits"):
        read_evaluation_set(tmp_path / "dev", "test")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (coco({"gone.jpg": ["a cat"]}), r"images\[0\]: gone\.jpg: no such file in any of"),
        (coco({"1.jpg": []}), r"images\[0\]: 1\.jpg has no caption"),
        ({"images": [{"id": 1}], "annotations": []}, r"images\[0\]: .* file name is missing"),
        ({"images": [], "annotations": []}, "no images"),
        ({"info": {}}, "neither COCO captions nor Karpathy's"),
        (["a"], "not a JSON object"),
        (karpathy([karpathy_image("1.jpg", "val", 1)]), r"1\.jpg has no caption"),
        (
            karpathy([karpathy_image("1.jpg", "train", 1, "a cat")]),
            "no dev split; Karpathy's splits with train",
        ),
    ],
)
def test_a_bad_annotation_file_is_refused_with_the_place(
    tmp_path: Path, data: object, named: str
) -> None:
    write_image(tmp_path / "1.jpg")
    write_image(tmp_path / "val2014" / "1.jpg")
    path = write_json(tmp_path / "captions.json", data)
    with pytest.raises(DataError, match=named) as caught:
        read_evaluation_set(path)
    assert str(path) in str(caught.value)
