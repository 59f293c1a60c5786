"""Fine-tuning a CLIP model on captioned images before captioning is learned: images and their
captions are pulled together, all others apart.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision",
arXiv 2103.00020, section 2; several captions of an image all count as its own.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from timm.layers import DropPath
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from clipcap import encoder as encoders
from clipcap.data import Example, Splits
from clipcap.data.pictures import Picture
from clipcap.encoder import ClipModel, Encoder
from clipcap.errors import TrainingError
from clipcap.norms import fold_norms_in_training
from clipcap.training.augment import augment
from clipcap.training.captions import clean_caption
from clipcap.training.config import TrainingConfig
from clipcap.training.embeddings import read_pixels
from clipcap.training.stage import Stage, run_stage

CAPTIONS_EACH = 2
"""Captions of an image in one step: more cost time and say little new."""
PARAPHRASED_IMAGES = 256
"""In one step. A text costs next to nothing beside an image."""
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
        fold_norms_in_training(clip.visual)

    def train(self, mode: bool = True) -> ContrastiveModel:
        super().train(mode)
        for module in self.clip.visual.modules():
            if isinstance(module, _BatchNorm):
                module.train(False)
        return self

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Shapes: pixels `(B, 3, H, W)` → embedding `(B, D)`, not normalised."""
        device = pixels.device.type
        # On a CPU the gradients of convolutions take longer in bfloat16 than in single precision.
        half = device != "cpu" and torch.is_autocast_enabled(device)
        with torch.autocast(device, enabled=half):
            encoded: Tensor = self.clip.encode_image(pixels.to(memory_format=torch.channels_last))
        return encoded.float()

    def encode_pictures(self, encoder: Encoder, pictures: Sequence[Picture]) -> Tensor:
        """As above, in batches, read as the encoder reads them: `(N, D)` on the CPU."""
        device = self.clip.logit_scale.device
        batches = [
            pictures[i : i + EVALUATION_BATCH] for i in range(0, len(pictures), EVALUATION_BATCH)
        ]
        return torch.cat(
            [self.encode_images(read_pixels(encoder, batch).to(device)).cpu() for batch in batches]
        )

    def encode_texts(self, tokens: Tensor) -> Tensor:
        """Shapes: tokens `(N, T)` → unit vectors `(N, D)`."""
        encoded: Tensor = self.clip.encode_text(tokens, normalize=True)
        return encoded.float()

    def loss(self, embedding: Tensor, texts: Tensor, others: Tensor | None = None) -> Tensor:
        """The contrastive loss in nats, over both directions, of the images of all processes.
        `others` are texts of images that are not among these, from which their own have to be
        told, too.

        Shapes: embedding `(B, D)`, texts `(B·C, D)`, C of each image in turn, others `(N, D)`.
        """
        images, texts = gathered(nn.functional.normalize(embedding, dim=-1)), gathered(texts)
        all_texts = texts if others is None else torch.cat([texts, others])
        return contrastive_loss(self.scale() * images @ all_texts.T, len(texts) // len(images))

    def paraphrase_loss(self, texts: Tensor) -> Tensor:
        """The same between texts. Shapes: texts `(2·N, D)`, two of each image in turn."""
        return contrastive_loss(self.scale() * texts[0::2] @ texts[1::2].T)

    def scale(self) -> Tensor:
        scale: Tensor = self.clip.logit_scale.exp().clamp(max=LARGEST_SCALE)
        return scale

    def forward(
        self, pixels: Tensor, tokens: Tensor, pairs: Tensor | None = None, weight: float = 0.0
    ) -> Tensor:
        """As `loss`, and `weight` of the paraphrases' loss, whose texts are the others.

        Shapes: pixels `(B, 3, H, W)`, tokens `(B·C, T)`, pairs `(2·N, T)`.
        """
        embedding, texts = self.encode_images(pixels), self.encode_texts(tokens)
        if pairs is None:
            return self.loss(embedding, texts)
        others = self.encode_texts(pairs)
        return self.loss(embedding, texts, others) + weight * self.paraphrase_loss(others)


def gathered(own: Tensor) -> Tensor:
    """The rows of all processes, one process after the other. Their gradients go back to each.

    Shapes: `(B, D)`, where B may differ → `(B of all, D)`.
    """
    processes = PartialState()
    if processes.num_processes == 1:
        return own
    counts = gather_object([len(own)])
    padded = nn.functional.pad(own.detach(), (0, 0, 0, max(counts) - len(own)))
    of_all = [torch.empty_like(padded) for _ in counts]
    torch.distributed.all_gather(of_all, padded)
    # Each process sees to its own rows. Gradients are then averaged over processes, not summed.
    of_all[processes.process_index] = own + (len(counts) - 1) * (own - own.detach())
    return torch.cat([rows[:count] for rows, count in zip(of_all, counts, strict=True)])


def share(own: int) -> float:
    """Of a process's items, beside those that each would have of equal shares: the weight of their
    mean where means are averaged over processes."""
    if PartialState().num_processes == 1:
        return 1.0
    counts = gather_object([own])
    return float(own * len(counts) / sum(counts))


def contrastive_loss(similarity: Tensor, each: int = 1) -> Tensor:
    """Mean cross-entropy of texts given images and of images given texts; 0 at the best.

    Shapes: similarity `(B, B·each + N)`, scaled; the texts of image i are i·each up to
    (i+1)·each, the last N are of none of them.
    """
    images = len(similarity)
    owner = torch.arange(images, device=similarity.device).repeat_interleave(each)
    own = torch.arange(len(owner), device=similarity.device)
    of_texts = similarity.log_softmax(dim=1)[owner, own]
    of_images = nn.functional.cross_entropy(similarity[:, own].T, owner)
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
    encoder: Encoder,
    splits: Splits,
    unseen: Sequence[Sequence[str]],
    config: TrainingConfig,
    work: Path,
) -> tuple[Encoder, list[dict[str, float]]]:
    """Fine-tune the CLIP model that an encoder is the image side of. Its text side may learn from
    captions of unseen images, too, that those of one image belong together.

    Returns its image side as an encoder of its own, kept in `work`/tuned, and what was measured.
    Raises: BundleError, DataError, TrainingError.
    """
    clip = encoders.load_clip(encoder)
    processes = PartialState()
    device = processes.device
    clip.model.to(device)
    unlock(clip, config)
    paraphrases = Paraphrases(unseen) if config.tower_paraphrases else None
    history = run_stage(_stage(encoder, clip, splits, paraphrases, config, device), config, work)
    return kept(clip, work / "tuned"), history


class Paraphrases:
    """Pairs of captions of one image, of images of which nothing but captions is known."""

    def __init__(self, unseen: Sequence[Sequence[str]]) -> None:
        """Raises: TrainingError where no two captions are of one image."""
        self._told = [captions for captions in unseen if len(captions) > 1]
        if not self._told:
            raise TrainingError("tower_paraphrases: pretrain_text has no two captions of one image")

    def draw(self) -> list[str]:
        """Captions of an image in turn, two of each."""
        draw = random.Random(int(torch.randint(2**31, (1,)).item()))  # noqa: S311 (no secret)
        told = draw.sample(self._told, min(PARAPHRASED_IMAGES, len(self._told)))
        return [caption for captions in told for caption in draw.sample(captions, 2)]


def unlock(clip: ClipModel, config: TrainingConfig) -> None:
    """Let the last layer groups of the image tower learn, and no others, and let the images of a
    batch pass by some of its blocks, the deeper the more.

    Source: Huang et al., "Deep Networks with Stochastic Depth", arXiv 1603.09382.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # open_clip's, of where timm keeps a helper
        clip.model.lock_image_tower(unlocked_groups=config.tower_groups)
    if not config.tower_drop_path:
        return
    blocks = [m for m in clip.model.visual.modules() if hasattr(m, "drop_path")]
    for depth, block in enumerate(blocks, start=1):
        block.drop_path = DropPath(config.tower_drop_path * depth / len(blocks))


def kept(clip: ClipModel, folder: Path) -> Encoder:
    """The image side, from a folder that the main process writes."""
    processes = PartialState()
    if processes.is_main_process:
        encoders.save_clip(clip, folder)
    processes.wait_for_everyone()
    return encoders.load_folder(folder)


def seen(
    encoder: Encoder, examples: Sequence[Example], captions_each: int, config: TrainingConfig
) -> tuple[Tensor, list[str]]:
    """A view of each image `(B, 3, H, W)`, and some captions of each in turn, cleaned.

    What is drawn follows from torch's random state, which each step begins with anew.
    """
    seed = int(torch.randint(2**31, (1,)).item())
    pixels = read_pixels(encoder, [example.image for example in examples])
    draw = random.Random(seed)  # noqa: S311 (no secret)
    captions = [
        clean_caption(caption, config)
        for example in examples
        for caption in some(example.captions, captions_each, draw)
    ]
    return augment(pixels, torch.Generator().manual_seed(seed)), captions


def some(captions: Sequence[str], count: int, draw: random.Random) -> list[str]:
    """Captions at random, none twice before all have had their turn."""
    shuffled = draw.sample(captions, len(captions))
    return [shuffled[i % len(shuffled)] for i in range(count)]


def _stage(
    encoder: Encoder,
    clip: ClipModel,
    splits: Splits,
    paraphrases: Paraphrases | None,
    config: TrainingConfig,
    device: torch.device,
) -> Stage:
    module = ContrastiveModel(clip.model)

    def loss(items: Tensor) -> Tensor:
        examples = [splits.train[item] for item in items.tolist()]
        view, captions = seen(encoder, examples, CAPTIONS_EACH, config)
        pairs = clip.tokenize(paraphrases.draw()).to(device) if paraphrases else None
        tokens = clip.tokenize(captions).to(device)
        value: Tensor = module(view.to(device), tokens, pairs, config.tower_paraphrases)
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
        whole=True,
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
    images = nn.functional.normalize(
        module.encode_pictures(encoder, [example.image for example in splits.dev]), dim=-1
    )
    batches = [
        splits.dev[i : i + EVALUATION_BATCH] for i in range(0, len(splits.dev), EVALUATION_BATCH)
    ]
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
    dev_loss = contrastive_loss(module.scale().cpu() * images @ texts[first].T).item()
    return {"dev_loss": dev_loss, **recalls(images, texts, owner)}
