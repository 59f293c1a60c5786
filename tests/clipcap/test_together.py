"""Tower, mapper and decoder trained together."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from clipcap import encoder as encoders
from clipcap.bundle import read_config
from clipcap.encoder import Encoder
from clipcap.errors import TrainingError
from clipcap.training.config import read_config as read_recipe
from clipcap.training.run import train
from clipcap.training.tower import some
from tests.tiny_bundle import (
    CONVOLUTIONAL_TOWER,
    READING_TOWER,
    TINY_CONFIG,
    build_colour_data,
    build_tiny_tower,
)

TOGETHER = {
    "epochs": 2,
    "together_epochs": 6,
    "together_batch": 8,
    "together_learning_rate": 3e-3,
    "tower_groups": 2,
}


def trained(
    model: dict[str, object], folder: Path
) -> tuple[Encoder, Encoder, list[dict[str, float]]]:
    """The tower before and after, and what was measured."""
    tower = build_tiny_tower(folder / "tower", model)
    config = TINY_CONFIG.model_copy(update={**TOGETHER, "encoder": str(tower)})
    train(build_colour_data(folder / "data"), folder / "out", config)
    history = read_config(folder / "out").provenance["history"]["together"]
    return encoders.load_folder(tower), encoders.load_folder(folder / "out" / "clip"), history


@pytest.mark.slow
@pytest.mark.parametrize("model", [READING_TOWER, CONVOLUTIONAL_TOWER], ids=["vit", "timm"])
def test_the_tower_learns_with_the_captions(model: dict[str, object], tmp_path: Path) -> None:
    before, after, history = trained(model, tmp_path)
    assert len(history) == 6
    assert history[-1]["dev_loss"] < history[0]["dev_loss"]
    pixels = torch.rand(2, 3, 32, 32)
    assert not torch.allclose(before.encode(pixels), after.encode(pixels), atol=1e-2)
    assert after.text is not None


@pytest.mark.slow
def test_what_is_locked_stays(tmp_path: Path) -> None:
    before, after, _ = trained(CONVOLUTIONAL_TOWER, tmp_path)
    stored, kept = (encoders.load_clip(e).model.visual.state_dict() for e in (before, after))
    locked = [key for key in stored if "running_" in key or "conv_stem" in key]
    assert locked
    for key in locked:
        torch.testing.assert_close(kept[key], stored[key], rtol=1e-3, atol=1e-3)


def test_a_run_without_images_trains_no_tower(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="text_only knows no images"):
        read_recipe(None, {"text_only": True, "together_epochs": 1})


def test_no_caption_comes_twice_before_all_have_come_once() -> None:
    draw = random.Random(0)  # noqa: S311 (no secret)
    assert sorted(some(["a", "b", "c"], 3, draw)) == ["a", "b", "c"]
    assert sorted(some(["a", "b"], 4, draw)) == ["a", "a", "b", "b"]
