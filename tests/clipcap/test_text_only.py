"""Training on captions alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from clipcap import bundle as bundles
from clipcap.errors import TrainingError
from clipcap.training.config import read_config
from clipcap.training.run import train
from clipcap.training.text_only import with_noise
from tests.tiny_bundle import READING_TOWER, TINY_CONFIG, build_colour_data, build_tiny_tower


def test_noise_has_the_variance_asked_for_and_leaves_the_length_at_one() -> None:
    torch.manual_seed(0)
    embedding = torch.nn.functional.normalize(torch.randn(1, 512), dim=-1).expand(2000, -1)
    noisy = with_noise(embedding, 0.016)
    torch.testing.assert_close(noisy.norm(dim=-1), torch.ones(2000))
    # Of unit vectors e and e + n scaled to one, the cosine is 1 / sqrt(1 + |n|^2) on average.
    cosine = (noisy * embedding).sum(dim=-1).mean().item()
    assert cosine == pytest.approx((1 + 512 * 0.016) ** -0.5, abs=0.01)
    torch.testing.assert_close(with_noise(embedding, 0.0), embedding)


@pytest.mark.slow
def test_a_captioner_learns_from_captions_whose_images_it_cannot_see(tmp_path: Path) -> None:
    """The training images are all of one grey; only their captions tell of colours."""
    data = build_colour_data(tmp_path / "data")
    lines = (data / "train" / "metadata.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        Image.new("RGB", (8, 8), "grey").save(data / "train" / row["file_name"])
    tower = build_tiny_tower(tmp_path / "tower", READING_TOWER)
    config = TINY_CONFIG.model_copy(
        update={"encoder": str(tower), "text_only": True, "text_noise": 1e-4, "epochs": 25}
    )
    train(data, tmp_path / "out", config)

    history = bundles.load(tmp_path / "out").config.provenance["history"]["captioning"]
    assert history[-1]["train_loss"] < 0.6 * history[0]["train_loss"]


@pytest.mark.parametrize("asked", ["text_only", "pretrain_mapper"])
def test_an_encoder_without_a_text_side_is_refused_at_once(tmp_path: Path, asked: str) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text('{"caption": "a dog"}')
    tower = build_tiny_tower(tmp_path / "tower")
    config = TINY_CONFIG.model_copy(
        update={"encoder": str(tower), "pretrain_text": text, asked: True}
    )
    with pytest.raises(TrainingError, match="no text side"):
        train(build_colour_data(tmp_path / "data"), tmp_path / "out", config)
    assert not (tmp_path / "out.work").exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"normalize_embedding": "false"},
        {"views": "2"},
        {"tower_epochs": "1"},
        {"pretrain_mapper": "true", "pretrain_text": "captions.jsonl", "start_from": ""},
    ],
)
def test_what_needs_images_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(TrainingError, match="text_only"):
        read_config(None, {"text_only": "true", **fields})


@pytest.mark.slow
def test_a_mapper_learns_from_texts_before_it_sees_images(tmp_path: Path) -> None:
    """A decoder that reads on its own cannot know the colour that comes next."""
    text = tmp_path / "text.jsonl"
    colours = ("red", "blue", "green", "black", "white", "pink", "brown", "grey")
    text.write_text("".join(f'{{"caption": "{c}"}}\n' for c in colours * 20))
    fields = {
        "encoder": str(build_tiny_tower(tmp_path / "tower", READING_TOWER)),
        "pretrain_text": text,
        "pretrain_epochs": 12,
        "pretrain_learning_rate": 1e-2,
        "epochs": 0,
    }
    losses = {}
    for mapper in (False, True):
        out = tmp_path / f"out-{mapper}"
        config = TINY_CONFIG.model_copy(update={**fields, "pretrain_mapper": mapper})
        train(build_colour_data(tmp_path / f"data-{mapper}"), out, config)
        history = bundles.load(out).config.provenance["history"]["pretraining"]
        losses[mapper] = history[-1]["train_loss"]
        assert ("cider_d" in history[-1]) == mapper  # of captions of images not yet seen
    assert losses[True] < 0.8 * losses[False]


def test_a_mapper_that_has_learned_is_not_pretrained(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="new mapper"):
        read_config(None, {"pretrain_mapper": "true", "pretrain_text": str(tmp_path)})
