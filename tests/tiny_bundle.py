"""A tiny real captioner, made in seconds: a small random image tower, and a mapper and decoder
that `clipcap train` taught to name the colour of a plain picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from clipcap.options import DecodingOptions
from clipcap.training.config import TrainingConfig
from clipcap.training.parts import BROUGHT
from clipcap.training.run import train

COLOURS = ("red", "green", "blue", "white", "black", "yellow", "cyan", "magenta")
SENTENCES = ("a {} square", "a {} picture", "a plain {} picture", "all of it is {}")
IMAGE_SIZE_PX = 32

TOWER: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": IMAGE_SIZE_PX, "layers": 1, "width": 32, "head_width": 16,
                   "patch_size": 16, "pool_type": "avg"},
    "text_cfg": {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1},
}  # fmt: skip
PREPROCESS = {
    "size": IMAGE_SIZE_PX,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "resize_mode": "squash",
}

TINY_CONFIG = TrainingConfig(
    name="tiny",
    start_from="",
    vocab_size=300,
    layers=2,
    width=32,
    heads=2,
    context=48,
    prefix_length=2,
    dropout=0.0,
    mapper_dropout=0.0,
    epochs=40,
    batch_size=16,
    learning_rate=1e-2,
    label_smoothing=0.0,
    pretrain_label_smoothing=0.0,
)
EXPECTING_CONFIG = TINY_CONFIG.model_copy(
    update={
        "expected_cider_epochs": 3,
        "decoding": DecodingOptions(beam_size=6, rank_by="expected_cider"),
    }
)
"""It ranks by what it has learned to expect."""


def going_on_from(bundle: Path, **fields: Any) -> TrainingConfig:
    """As TINY_CONFIG, but for what the bundle brings."""
    own = TINY_CONFIG.model_dump(exclude_unset=True, exclude={"start_from", *BROUGHT})
    return TrainingConfig(**{**own, "start_from": str(bundle), **fields})


READING_TOWER = {**TOWER, "text_cfg": {**TOWER["text_cfg"], "vocab_size": 49408}}
"""Its text side has CLIP's vocabulary, so it can be tuned on captions."""
CONVOLUTIONAL_TOWER = {
    **READING_TOWER,
    "vision_cfg": {"timm_model_name": "test_efficientnet", "timm_pool": "avg",
                   "timm_proj": "linear", "image_size": IMAGE_SIZE_PX},
}  # fmt: skip


def build_tiny_tower(folder: Path, model_cfg: dict[str, Any] = TOWER) -> Path:
    """An open_clip model folder with seeded random weights."""
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    save_file(open_clip.CLIP(**model_cfg).state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": model_cfg, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


def build_colour_data(folder: Path) -> Path:
    """`train` and `dev` folders that show every colour, in slightly different sizes."""
    for split, copies in (("train", (0, 1)), ("dev", (2,))):
        (folder / split).mkdir(parents=True)
        rows = []
        for colour in COLOURS:
            for copy in copies:
                name = f"{colour}-{copy}.png"
                Image.new("RGB", (40 + copy, 30), colour).save(folder / split / name)
                captions = [sentence.format(colour) for sentence in SENTENCES]
                rows.append({"file_name": name, "captions": captions})
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / split / "metadata.jsonl").write_text(lines)
    return folder


def build_tiny_bundle(path: Path, config: TrainingConfig = TINY_CONFIG) -> Path:
    """Train the tiny captioner and write its bundle to `path`."""
    parts = path.with_name(f"{path.name}.parts")
    tower = build_tiny_tower(parts / "tower")
    data = build_colour_data(parts / "data")
    train(data, path, config.model_copy(update={"encoder": str(tower)}))
    return path
