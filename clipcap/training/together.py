"""Training the image tower, the mapper and the decoder together, after each has learned alone: what
a caption needs to know of an image reaches the tower itself. CLIP's loss is kept beside that of
captions, so that the text side goes on to fit.

Source: Yu et al., "CoCa: Contrastive Captioners are Image-Text Foundation Models",
arXiv 2205.01917, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from accelerate import PartialState
from torch import Tensor, nn

from clipcap import encoder as encoders
from clipcap.data import Splits
from clipcap.encoder import ClipModel, Encoder
from clipcap.training.captions import tokenize
from clipcap.training.config import TrainingConfig
from clipcap.training.dev import dev_evaluation
from clipcap.training.model import PrefixLanguageModel
from clipcap.training.parts import Parts
from clipcap.training.stage import Stage, run_stage
from clipcap.training.tower import ContrastiveModel, kept, seen, share, unlock

CAPTIONING_WEIGHT = 2.0
"""Of the captions' loss beside CLIP's, as in CoCa."""


class TogetherModel(nn.Module):
    """A CLIP model, and the captioner that reads its embeddings."""

    def __init__(
        self, contrastive: ContrastiveModel, captioner: PrefixLanguageModel, *, normalize: bool
    ) -> None:
        super().__init__()
        self.contrastive = contrastive
        self.captioner = captioner
        self._normalize = normalize

    def read(self, embedding: Tensor) -> Tensor:
        """An embedding as the captioner reads it. Shapes: `(B, D)`."""
        return nn.functional.normalize(embedding, dim=-1) if self._normalize else embedding

    def forward(
        self, pixels: Tensor, tokens: Tensor, targets: Tensor, label_smoothing: float = 0.0
    ) -> Tensor:
        """Both losses, in nats.

        Shapes: pixels `(B, 3, H, W)`, tokens `(B·C, T)`, targets `(B·C, T)` padded with IGNORED:
        C captions of each image in turn, for the text side and for the decoder.
        """
        embedding = self.contrastive.encode_images(pixels)  # (B, D)
        repeated = self.read(embedding).repeat_interleave(len(targets) // len(pixels), dim=0)
        captioning: Tensor = self.captioner(repeated, targets, label_smoothing)
        texts = self.contrastive.encode_texts(tokens)
        weight = CAPTIONING_WEIGHT * share(len(pixels))
        return self.contrastive.loss(embedding, texts) + weight * captioning


def tune_together(
    parts: Parts,
    captioner: PrefixLanguageModel,
    splits: Splits,
    config: TrainingConfig,
    work: Path,
) -> tuple[Encoder, list[dict[str, float]]]:
    """Train all parts: the captioner where it is, the tower as an encoder of its own, which is
    kept in `work`/together.tuned and returned with what was measured.

    Raises: BundleError, DataError, TrainingError.
    """
    clip = encoders.load_clip(parts.encoder)
    clip.model.to(PartialState().device)
    unlock(clip, config)
    module = TogetherModel(
        ContrastiveModel(clip.model), captioner, normalize=config.normalize_embedding
    )
    history = run_stage(_stage(parts, clip, module, splits, config), config, work)
    return kept(clip, work / "together.tuned"), history


def _stage(
    parts: Parts, clip: ClipModel, module: TogetherModel, splits: Splits, config: TrainingConfig
) -> Stage:
    device = PartialState().device

    def loss(items: Tensor) -> Tensor:
        examples = [splits.train[item] for item in items.tolist()]
        view, captions = seen(parts.encoder, examples, config.together_captions, config)
        targets = tokenize(captions, parts.decoder, config).batch(torch.arange(len(captions)))
        value: Tensor = module(
            view.to(device),
            clip.tokenize(captions).to(device),
            targets.to(device),
            config.label_smoothing,
        )
        return value

    return Stage(
        name="together",
        module=module,
        lengths=[1] * len(splits.train),
        loss=loss,
        evaluate=_evaluation(parts, module, splits, config),
        judge=lambda measured: measured["cider_d"],
        epochs=config.together_epochs,
        batch_size=config.together_batch,
        learning_rate=config.together_learning_rate,
        whole=True,
    )


def _evaluation(
    parts: Parts, module: TogetherModel, splits: Splits, config: TrainingConfig
) -> Callable[[], dict[str, float]]:
    images = [example.image for example in splits.dev]

    @torch.inference_mode()
    def evaluate() -> dict[str, float]:
        embeddings = module.read(module.contrastive.encode_pictures(parts.encoder, images))
        return dev_evaluation(parts.decoder, module.captioner, splits, embeddings, config)()

    return evaluate
