"""Fine-tuning a CLIP model on captions, and other views of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from timm.layers import DropPath

from clipcap import encoder as encoders
from clipcap.data import read_splits
from clipcap.data.pictures import ImageFile
from clipcap.errors import BundleError, TrainingError
from clipcap.training.augment import augment
from clipcap.training.config import TrainingConfig, read_config
from clipcap.training.embeddings import embed
from clipcap.training.text_only import embed_captions
from clipcap.training.tower import contrastive_loss, recalls, tune_tower, unlock
from tests.tiny_bundle import (
    CONVOLUTIONAL_TOWER,
    READING_TOWER,
    TINY_CONFIG,
    build_colour_data,
    build_tiny_tower,
)

TUNING = TINY_CONFIG.model_copy(
    update={
        "tower_epochs": 12,
        "tower_batch": 16,
        "tower_groups": 2,
        "tower_learning_rate": 3e-3,
        "tower_text_learning_rate": 3e-3,
        "weight_decay": 0.0,
    }
)


@pytest.mark.parametrize("others", [0, 4])
def test_the_contrastive_loss_is_that_of_a_plain_loop(others: int) -> None:
    similarity = torch.randn(3, 6 + others, generator=torch.Generator().manual_seed(0))
    by_hand = 0.0
    for text in range(6):
        image = text // 2
        of_image = similarity[:, text].exp()
        by_hand -= math.log(of_image[image] / of_image.sum()) / 6
        of_text = similarity[image].exp()
        by_hand -= (math.log(of_text[text] / of_text.sum()) + math.log(2)) / 6
    assert contrastive_loss(similarity, 2).item() == pytest.approx(by_hand / 2, abs=1e-5)


def test_the_contrastive_loss_has_its_least_value_where_all_is_told_apart() -> None:
    similarity = torch.eye(4).repeat_interleave(2, dim=1) * 1000
    assert contrastive_loss(similarity, 2).item() == pytest.approx(0.0, abs=1e-5)


def test_recalls_count_what_is_among_the_nearest() -> None:
    images = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), dim=1)
    texts = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1], [1.0, 0.2], [0.4, 1.0]]), dim=1)
    found = recalls(images, texts, torch.tensor([0, 1, 1]))
    assert found["image_to_text_1"] == 100
    assert found["text_to_image_1"] == pytest.approx(200 / 3)
    assert found["text_to_image_10"] == 100


def test_a_view_follows_from_its_generator_and_stays_within_the_light_of_the_image() -> None:
    pixels = torch.rand(5, 3, 12, 20, generator=torch.Generator().manual_seed(0)) * 2 - 1
    view = augment(pixels, torch.Generator().manual_seed(1))
    assert view.shape == pixels.shape
    assert torch.equal(view, augment(pixels, torch.Generator().manual_seed(1)))
    assert not torch.equal(view, augment(pixels, torch.Generator().manual_seed(2)))
    for image, seen in zip(pixels, view, strict=True):
        assert seen.min() >= image.min()
        assert seen.max() <= image.max()


def test_the_first_view_is_the_image_as_it_is(tmp_path: Path) -> None:
    encoder = encoders.load_folder(build_tiny_tower(tmp_path / "tower"))
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        Image.linear_gradient("L").rotate(90 * i).convert("RGB").save(path)
    pictures = [ImageFile(path, path.name) for path in paths]
    alone = embed(encoder, pictures, tmp_path / "cache", label="train")
    views = embed(encoder, pictures, tmp_path / "cache", label="train", views=3)
    assert alone.shape == (3, 1, 32)
    assert views.shape == (3, 3, 32)
    torch.testing.assert_close(views[:, :1], alone)
    assert not torch.allclose(views[:, 0], views[:, 1])
    assert not torch.allclose(views[:, 1], views[:, 2])


@pytest.mark.slow
@pytest.mark.parametrize("model", [READING_TOWER, CONVOLUTIONAL_TOWER], ids=["vit", "timm"])
def test_tuning_brings_images_and_captions_together(
    model: dict[str, object], tmp_path: Path
) -> None:
    encoder, history, splits = tune(model, tmp_path)
    assert history[-1]["dev_loss"] < history[0]["dev_loss"]
    chance = 100 / len(splits.dev)
    assert history[-1]["image_to_text_1"] >= 2 * chance
    again = encoders.load_folder(tmp_path / "work" / "tuned")
    pixels = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again.encode(pixels), encoder.encode(pixels))


@pytest.mark.slow
def test_what_is_locked_and_the_statistics_of_batch_norms_stay(tmp_path: Path) -> None:
    tuned, _, _ = tune(CONVOLUTIONAL_TOWER, tmp_path, epochs=1)
    untuned = encoders.load_folder(tmp_path / "tower")
    before, after = (encoders.load_clip(e).model.visual.state_dict() for e in (untuned, tuned))
    statistics = [key for key in before if "running_" in key]
    assert statistics
    for key in (*statistics, "trunk.conv_stem.weight"):
        assert torch.equal(before[key], after[key]), key
    assert not torch.equal(before["trunk.conv_head.weight"], after["trunk.conv_head.weight"])


def test_a_text_side_that_cannot_read_captions_is_refused(tmp_path: Path) -> None:
    encoder = encoders.load_folder(build_tiny_tower(tmp_path / "tower"))
    with pytest.raises(BundleError, match="text side is too small"):
        encoders.load_clip(encoder)


@pytest.mark.slow
def test_captions_of_an_image_nobody_has_come_together(tmp_path: Path) -> None:
    unseen = [(f"{thing} one", f"{thing} two") for thing in ("dog", "cat", "boat", "man", "street")]
    apart = []
    for weight in (0.0, 1.0):
        tuned, _, _ = tune(
            READING_TOWER, tmp_path / str(weight), unseen=unseen, tower_paraphrases=weight
        )
        texts = embed_captions(tuned, [caption for pair in unseen for caption in pair])
        similarity = texts[0::2] @ texts[1::2].T
        apart.append((similarity.diagonal().mean() - similarity.mean()).item())
    assert apart[1] > 2 * apart[0]


def test_without_two_captions_of_one_image_there_are_no_paraphrases(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no two captions"):
        tune(READING_TOWER, tmp_path, unseen=[("a dog",)], tower_paraphrases=1.0)


def test_the_deeper_a_block_the_more_images_pass_by_it(tmp_path: Path) -> None:
    encoder = encoders.load_folder(build_tiny_tower(tmp_path / "tower", CONVOLUTIONAL_TOWER))
    clip = encoders.load_clip(encoder)
    unlock(clip, TUNING.model_copy(update={"tower_drop_path": 0.4}))
    rates = [m.drop_prob for m in clip.model.visual.modules() if isinstance(m, DropPath)]
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(0.4)


def test_unseen_images_must_be_told_of() -> None:
    with pytest.raises(TrainingError, match="needs pretrain_text"):
        read_config(None, {"tower_paraphrases": "1"})


def tune(  # type: ignore[no-untyped-def]
    model: dict[str, object],
    folder: Path,
    epochs: int | None = None,
    unseen: Sequence[Sequence[str]] = (),
    **fields: object,
):
    config: TrainingConfig = TUNING.model_copy(update=fields)
    if epochs is not None:
        config = config.model_copy(update={"tower_epochs": epochs})
    encoder = encoders.load_folder(build_tiny_tower(folder / "tower", model))
    splits = read_splits(build_colour_data(folder / "data"), held_out=0.1, seed=0)
    (folder / "work").mkdir()
    torch.manual_seed(0)
    tuned, history = tune_tower(encoder, splits, unseen, config, folder / "work")
    return tuned, history, splits
