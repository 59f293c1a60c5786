"""Fine-tuning a CLIP model on captioned images before captioning is learned: images and their
captions are pulled together, all others apart.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
arXiv 2103.00020, section 2; several captions of an image all count as its own.
"""

from __future__ import annotations

import math
import random
import warnings
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from clipcap import encoder as encoders
from clipcap.data import Splits
from clipcap.encoder import ClipModel, Encoder
from clipcap.training.augment import augment
from clipcap.training.captions import clean_caption
from clipcap.training.config import TrainingConfig
from clipcap.training.embeddings import read_pixels
from clipcap.training.stage import Stage, run_stage

CAPTIONS_EACH = 2
"""Captions of an image in one step: more cost time and say little new."""
LARGEST_SCALE = 100.0
"""Of the similarities; as in CLIP, a larger one makes training unstable."""
RECALL_AT = (1, 10)
EVALUATION_BATCH = 50


class ContrastiveModel(nn.Module):
    """An open_clip model whose batch norms keep the statistics they were trained with: small
    batches would only spoil them."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip = clip

    def train(self, mode: bool = True) -> ContrastiveModel:
        super().train(mode)
        for module in self.clip.visual.modules():
            if isinstance(module, _BatchNorm):
                module.train(False)
        return self

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Shapes: pixels `(B, 3, H, W)` → unit vectors `(B, D)`."""
        encoded: Tensor = self.clip.encode_image(
            pixels.to(memory_format=torch.channels_last), normalize=True
        )
        return encoded.float()

    def encode_texts(self, tokens: Tensor) -> Tensor:
        """Shapes: tokens `(N, T)` → unit vectors `(N, D)`."""
        encoded: Tensor = self.clip.encode_text(tokens, normalize=True)
        return encoded.float()

    def forward(self, pixels: Tensor, tokens: Tensor) -> Tensor:
        """The contrastive loss in nats, over both directions.

        Shapes: pixels `(B, 3, H, W)`, tokens `(B·C, T)`, C captions of each image in turn.
        """
        scale = self.clip.logit_scale.exp().clamp(max=LARGEST_SCALE)
        similarity = scale * self.encode_images(pixels) @ self.encode_texts(tokens).T  # (B, B·C)
        return contrastive_loss(similarity)


def contrastive_loss(similarity: Tensor) -> Tensor:
    """Mean cross-entropy of texts given images and of images given texts; 0 at the best.

    Shapes: similarity `(B, B·C)`, scaled; the texts of image i are i·C up to (i+1)·C.
    """
    images, texts = similarity.shape
    each = texts // images
    owner = torch.arange(images, device=similarity.device).repeat_interleave(each)
    of_texts = similarity.log_softmax(dim=1)[owner, torch.arange(texts, device=owner.device)]
    of_images = nn.functional.cross_entropy(similarity.T, owner)
    return (of_images - of_texts.mean() - math.log(each)) / 2


def recalls(images: Tensor, texts: Tensor, owner: Tensor) -> dict[str, float]:
    """Percent of texts whose image, and of images one of whose texts, is among the nearest k.

    Shapes: images `(N, D)` and texts `(M, D)` of unit length, owner `(M,)` image of each text.
    """
    similarity = images @ texts.T
    measured = {}
    for k in RECALL_AT:
        near = similarity.topk(min(k, len(texts)), dim=1).indices
        found = (owner[near] == torch.arange(len(images))[:, None]).any(dim=1)
        measured[f"image_to_text_{k}"] = 100 * found.float().mean().item()
        near = similarity.T.topk(min(k, len(images)), dim=1).indices
        found = (near == owner[:, None]).any(dim=1)
        measured[f"text_to_image_{k}"] = 100 * found.float().mean().item()
    return measured


def tune_tower(
    encoder: Encoder, splits: Splits, config: TrainingConfig, work: Path
) -> tuple[Encoder, list[dict[str, float]]]:
    """Fine-tune the CLIP model that an encoder is the image side of.

    Returns its image side as an encoder of its own, kept in `work`/tuned, and what was measured.
    Raises: BundleError, DataError, TrainingError.
    """
    clip = encoders.load_clip(encoder)
    processes = PartialState()
    device = processes.device
    clip.model.to(device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # open_clip's, of where timm keeps a helper
        clip.model.lock_image_tower(unlocked_groups=config.tower_groups)
    history = run_stage(_stage(encoder, clip, splits, config, device), config, work)
    folder = work / "tuned"
    if processes.is_main_process:
        encoders.save_clip(clip, folder)
    processes.wait_for_everyone()
    return encoders.load_folder(folder), history


def _stage(
    encoder: Encoder,
    clip: ClipModel,
    splits: Splits,
    config: TrainingConfig,
    device: torch.device,
) -> Stage:
    module = ContrastiveModel(clip.model)

    def loss(items: Tensor) -> Tensor:
        # What is drawn follows from torch's random state, which each step begins with anew.
        seed = int(torch.randint(2**31, (1,)).item())
        examples = [splits.train[item] for item in items.tolist()]
        pixels = read_pixels(encoder, [example.image for example in examples])
        view = augment(pixels, torch.Generator().manual_seed(seed))
        draw = random.Random(seed)  # noqa: S311 (no secret)
        captions = [
            clean_caption(caption, config)
            for example in examples
            for caption in draw.choices(example.captions, k=CAPTIONS_EACH)
        ]
        value: Tensor = module(view.to(device), clip.tokenize(captions).to(device))
        return value

    @torch.inference_mode()
    def evaluate() -> dict[str, float]:
        return _evaluate(module, encoder, clip, splits, config, device)

    text_side = [p for name, p in clip.model.named_parameters() if not name.startswith("visual.")]
    return Stage(
        name="tower",
        module=module,
        lengths=[1] * len(splits.train),
        loss=loss,
        evaluate=evaluate,
        judge=lambda measured: -measured["dev_loss"],
        epochs=config.tower_epochs,
        batch_size=config.tower_batch,
        learning_rate=config.tower_learning_rate,
        rates={config.tower_text_learning_rate: text_side},
    )


def _evaluate(
    module: ContrastiveModel,
    encoder: Encoder,
    clip: ClipModel,
    splits: Splits,
    config: TrainingConfig,
    device: torch.device,
) -> dict[str, float]:
    """The contrastive loss of dev, all images against one caption each, and recalls."""
    batches = [
        splits.dev[i : i + EVALUATION_BATCH] for i in range(0, len(splits.dev), EVALUATION_BATCH)
    ]
    images = torch.cat(
        [
            module.encode_images(read_pixels(encoder, [e.image for e in batch]).to(device))
            for batch in batches
        ]
    ).cpu()
    texts = torch.cat(
        [
            module.encode_texts(
                clip.tokenize([clean_caption(c, config) for e in batch for c in e.captions]).to(
                    device
                )
            )
            for batch in batches
        ]
    ).cpu()
    owner = torch.tensor([i for i, e in enumerate(splits.dev) for _ in e.captions])
    first = torch.tensor([int((owner < i).sum()) for i in range(len(splits.dev))])
    scale = clip.model.logit_scale.exp().clamp(max=LARGEST_SCALE).cpu()
    dev_loss = contrastive_loss(scale * images @ texts[first].T).item()
    return {"dev_loss": dev_loss, **recalls(images, texts, owner)}
