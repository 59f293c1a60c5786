"""The authors' pickles become sets that training reads, and no pickle runs code."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from clipcap.cli import main
from clipcap.data import read_evaluation_set
from clipcap.data.pickled import convert_pickle
from clipcap.data.stored import stored_embeddings
from clipcap.encoder import load_folder
from clipcap.errors import DataError
from clipcap.training.embeddings import embed
from tests.tiny_bundle import build_tiny_tower

ENCODER = "ViT-B-32-quickgelu:openai"


def write_pickle(path: Path, data: Any) -> Path:
    path.write_bytes(pickle.dumps(data))
    return path


@pytest.fixture
def authors(tmp_path: Path) -> Path:
    """As parse_coco.py writes it: an image is encoded once for each of its captions."""
    rows = torch.arange(3.0)[[0, 0, 1, 2], None].expand(4, 32).half()
    captions = [
        {"image_id": image, "id": 10 + row, "caption": caption, "clip_embedding": row}
        for row, (image, caption) in enumerate(
            [("391895", "a man"), ("391895", "a rider"), ("522418", "a woman"), ("7", "a cat")]
        )
    ]
    data = {"clip_embedding": rows.clone(), "captions": captions}
    return write_pickle(tmp_path / "oscar.pkl", data)


def test_an_image_has_one_row_and_all_its_captions(authors: Path, tmp_path: Path) -> None:
    assert convert_pickle(authors, tmp_path / "set", ENCODER) == 3
    examples = read_evaluation_set(tmp_path / "set")
    assert [(example.image_id, example.captions) for example in examples] == [
        (391895, ("a man", "a rider")),
        (522418, ("a woman",)),
        (7, ("a cat",)),
    ]
    found = stored_embeddings([example.image for example in examples[::-1]], ENCODER, 32)
    assert found is not None
    assert found.dtype == torch.float32
    assert found[:, 0].tolist() == [2, 1, 0]
    with pytest.raises(DataError, match="holds embeddings only, not the image 391895"):
        examples[0].image.open()


def test_training_takes_them_for_what_its_own_tower_would_have_said(
    authors: Path, tmp_path: Path
) -> None:
    convert_pickle(authors, tmp_path / "set", ENCODER)
    pictures = [example.image for example in read_evaluation_set(tmp_path / "set")]
    tower = load_folder(build_tiny_tower(tmp_path / "tower"))
    embeddings = embed(replace(tower, source=ENCODER), pictures, tmp_path / "cache", label="test")
    assert embeddings.shape == (3, 1, 32)
    with pytest.raises(DataError, match=rf"are of {ENCODER} and 32 wide; .* is a model folder"):
        embed(tower, pictures, tmp_path / "cache", label="test")


class Evil:
    """What every warning about pickles is about."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_that_names_a_function_is_refused_and_not_run(tmp_path: Path) -> None:
    evil = write_pickle(tmp_path / "evil.pkl", {"clip_embedding": Evil(tmp_path / "ran")})
    with pytest.raises(DataError, match=r"evil\.pkl: .* which could run code"):
        convert_pickle(evil, tmp_path / "set", ENCODER)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_hidden_in_a_tensors_bytes_is_not_run(tmp_path: Path) -> None:
    """torch's own reader of storages would run it."""
    inner = pickle.dumps(Evil(tmp_path / "ran"))

    class Storage:
        def __reduce__(self) -> tuple[Any, ...]:
            return torch.storage._load_from_bytes, (inner,)  # type: ignore[attr-defined]

    evil = write_pickle(tmp_path / "evil.pkl", {"clip_embedding": Storage()})
    with pytest.raises(DataError, match=r"evil\.pkl"):
        convert_pickle(evil, tmp_path / "set", ENCODER)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ([], "no matrix 'clip_embedding'"),
        ({"clip_embedding": torch.zeros(2, 4)}, "no list 'captions'"),
        ({"clip_embedding": torch.zeros(2, 4), "captions": [{"clip_embedding": 2}]}, "embedding 2"),
        ({"clip_embedding": torch.zeros(2, 4), "captions": [{}]}, "'caption' is missing"),
    ],
)
def test_another_pickle_is_refused(tmp_path: Path, data: object, named: str) -> None:
    with pytest.raises(DataError, match=named):
        convert_pickle(write_pickle(tmp_path / "x.pkl", data), tmp_path / "set", ENCODER)
    assert not (tmp_path / "set").exists()


def test_the_command_warns_and_never_writes_over_a_set(authors: Path, tmp_path: Path) -> None:
    arguments = ["data", "convert-pickle", str(authors), str(tmp_path / "set")]
    arguments += ["--encoder", ENCODER]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "a kind of file that can run code" in done.stderr
    assert "3 images" in done.stdout
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 1
    assert "is there already" in again.stderr
