"""An open_clip model: photographs in, embeddings `(B, D)` out; its text side scores captions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.transform import (
    Compose,
    MaybeToTensor,
    Normalize,
    PreprocessCfg,
    image_transform_v2,
)
from PIL import Image
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from clipcap.clip_score import TextSide, text_side
from clipcap.errors import BundleError
from clipcap.images import to_rgb
from clipcap.norms import fold_norms
from clipcap.precision import Mode
from clipcap.weights import write_weights

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
LONGEST_ASPECT = 10
"""More of an image's longer side than so many times the shorter is not looked at by a tower that
crops: what it sees is about square."""


@dataclass
class Encoder:
    """An image tower and its preprocessing.

    `source` is what it was loaded from: `"name:pretrained_tag"`, or None for a folder.
    """

    visual: nn.Module
    shape: Callable[[Image.Image], Image.Image]
    """Makes an image as large as image_size."""
    mean: Sequence[float]
    """Of each channel; its pixels, from 0 to 1, have this subtracted, and are divided by `std`."""
    std: Sequence[float]
    image_size: tuple[int, int]
    """Height and width in pixels of what the tower sees."""
    embedding_dim: int
    """D."""
    source: str | None
    folder: Path | None
    text: TextSide | None

    def to(self, device: torch.device) -> None:
        self.visual.to(device)
        if self.text is not None:
            self.text.to(device)

    def compute_in(self, mode: Mode) -> None:
        """Not int8. Pixels and embeddings are of single precision all the same."""
        self.visual.to(torch.bfloat16 if mode == "bf16" else torch.float32)

    def preprocess(self, image: Image.Image) -> Tensor:
        """Pixels resized and normalised as the tower was trained: `(3, H, W)`.

        open_clip's own preprocessing knows nothing of EXIF orientation or transparency, and
        computes with torch, which a thread that reads should not (see model_thread.py).
        """
        pixels = np.asarray(self.shape(to_rgb(image)), dtype=np.float32) / np.float32(255)
        pixels -= np.asarray(self.mean, dtype=np.float32)
        pixels /= np.asarray(self.std, dtype=np.float32)
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def fingerprint(self) -> str:
        """Changes with the weights and the preprocessing."""
        if self.folder is None:
            return f"{self.source}"
        digest = hashlib.sha256()
        for name in (CONFIG_FILE, WEIGHTS_FILE):
            digest.update((self.folder / name).read_bytes())
        return digest.hexdigest()

    def encode(self, pixels: Tensor) -> Tensor:
        """Shapes: pixels `(B, 3, H, W)` → embedding `(B, D)`, not normalised."""
        weight = next(self.visual.parameters())
        # Convolutions on the CPU are nearly twice as fast in this order; transformers don't mind.
        pixels = pixels.to(weight.device, weight.dtype, memory_format=torch.channels_last)
        embedding: Tensor = self.visual(pixels)
        return embedding.float()


def load_named(source: str) -> Encoder:
    """Load `"ViT-B-32-quickgelu:openai"` and the like; downloads the weights once.

    Raises: BundleError.
    """
    name, _, tag = source.partition(":")
    if not tag:
        raise BundleError(f"encoder {source!r}: write it as 'model:pretrained_tag'")
    try:
        model = open_clip.create_model(name, pretrained=tag, require_pretrained=True)
    except Exception as error:  # open_clip, huggingface_hub and urllib each raise their own
        raise BundleError(f"encoder {source!r} cannot be loaded: {error}") from error
    return _encoder(model, text_side(model, name), source=source, folder=None)


def load_folder(folder: Path) -> Encoder:
    """Load a folder that holds open_clip_config.json and open_clip_model.safetensors.

    Raises: BundleError.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise BundleError(f"{folder / name}: no such file")
    try:
        config = json.loads((folder / CONFIG_FILE).read_text())
        for key in ("model_cfg", "preprocess_cfg"):  # open_clip has defaults: the wrong ones here
            if not config[key]:
                raise KeyError(key)
        # Without require_pretrained, missing weights would stay random with only a log line.
        model = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True)
        _require_stored_shapes(model, folder / WEIGHTS_FILE)
    except BundleError:
        raise
    except (RuntimeError, SafetensorError) as error:
        raise BundleError(f"{folder / WEIGHTS_FILE}: not this model's weights: {error}") from error
    except Exception as error:  # a foreign config fails in as many ways as there are
        raise BundleError(
            f"{folder / CONFIG_FILE}: not a usable open_clip model: {error!r}"
        ) from error
    return _encoder(model, text_side(model, f"local-dir:{folder}"), source=None, folder=folder)


def _require_stored_shapes(model: nn.Module, path: Path) -> None:
    """open_clip resizes the positions of a tower of another size, with only a log line."""
    wanted = model.state_dict()
    with safe_open(path, "pt") as stored:
        for key in stored.keys():  # noqa: SIM118 (safe_open is no dict)
            shape = tuple(stored.get_slice(key).get_shape())
            if key in wanted and shape != tuple(wanted[key].shape):
                raise BundleError(
                    f"{path}: {key!r} has shape {shape}, the model needs {tuple(wanted[key].shape)}"
                )


def _encoder(
    model: Any, text: TextSide | None, *, source: str | None, folder: Path | None
) -> Encoder:
    model.eval().requires_grad_(False)
    fold_norms(model.visual)
    visual = model.visual.to(memory_format=torch.channels_last)
    size = visual.image_size
    height, width = size if isinstance(size, tuple | list) else (size, size)
    # Not every tower of open_clip says how wide its output is, so one blank image tells.
    with torch.inference_mode():
        embedding_dim = visual(torch.zeros(1, 3, height, width)).shape[-1]
    config = PreprocessCfg(**visual.preprocess_cfg)
    *shaping, to_tensor, normalise = image_transform_v2(config, is_train=False).transforms
    if not (isinstance(to_tensor, MaybeToTensor) and isinstance(normalise, Normalize)):
        raise BundleError("this open_clip prepares images in another way than the one known here")
    if config.resize_mode == "shortest":  # and then cropped
        shaping.insert(0, _without_far_ends)
    return Encoder(
        visual=visual,
        shape=Compose(shaping),
        mean=normalise.mean,
        std=normalise.std,
        image_size=(int(height), int(width)),
        embedding_dim=int(embedding_dim),
        source=source,
        folder=folder,
        text=text,
    )


def _without_far_ends(image: Image.Image) -> Image.Image:
    """What would be cropped all the same: a line of 20,000 pixels by 1, resized by its shorter
    side, takes gigabytes before."""
    width, height = (min(side, LONGEST_ASPECT * min(image.size)) for side in image.size)
    if (width, height) == image.size:
        return image
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


@dataclass
class ClipModel:
    """Both sides of an open_clip model, for fine-tuning it."""

    model: Any
    tokenize: Callable[[list[str]], Tensor]
    """Captions to tokens `(N, T)`."""
    config: dict[str, Any]
    """open_clip_config.json."""


def load_clip(encoder: Encoder) -> ClipModel:
    """Load, once more and whole, the model that an encoder is the image side of.

    Raises: BundleError when it has no text side that can read captions.
    """
    if encoder.folder is not None:
        name, tag = f"local-dir:{encoder.folder}", None
        config = json.loads((encoder.folder / CONFIG_FILE).read_text())
    else:
        name, _, tag = str(encoder.source).partition(":")
        config = {"model_cfg": open_clip.get_model_config(name)}
    model = open_clip.create_model(name, pretrained=tag, require_pretrained=True)
    config["preprocess_cfg"] = model.visual.preprocess_cfg
    tokenizer = open_clip.get_tokenizer(name)
    text_config = config["model_cfg"].get("text_cfg", {})
    if text_config.get("vocab_size", tokenizer.vocab_size) < tokenizer.vocab_size:
        raise BundleError(f"encoder {name!r}: its text side is too small to read captions")
    return ClipModel(model, tokenizer, config)


def save_clip(clip: ClipModel, folder: Path) -> None:
    """Write a folder that load_folder reads."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(json.dumps(clip.config, indent=2) + "\n")
    weights = {key: tensor.cpu().contiguous() for key, tensor in clip.model.state_dict().items()}
    write_weights(weights, folder / WEIGHTS_FILE)
