"""The stages of a run on embeddings: a decoder that reads text, mapper and decoder that learn to
caption, and captions rewarded by their score."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from clipcap.data import Splits
from clipcap.decoder import Decoder
from clipcap.training.captions import (
    IGNORED,
    PaddedTexts,
    caption_pairs,
    clean_caption,
    longest_caption,
    tokenize,
)
from clipcap.training.config import TrainingConfig
from clipcap.training.dev import FEW_IMAGES, mean_loss
from clipcap.training.imagined import ImaginedEmbeddings
from clipcap.training.model import PrefixLanguageModel, TextLanguageModel
from clipcap.training.parts import Parts
from clipcap.training.self_critical import CiderReward, sample, self_critical_loss
from clipcap.training.stage import Stage


def pretraining_stage(
    parts: Parts, texts: Sequence[str], splits: Splits, config: TrainingConfig
) -> Stage:
    module = TextLanguageModel(
        parts.decoder.model, parts.mapper.config.prefix_length, parts.decoder.end_of_text_id
    )
    device = parts.decoder.model.device
    train = tokenize(texts, parts.decoder, config)
    dev_captions = [clean_caption(c, config) for example in splits.dev for c in example.captions]
    dev = tokenize(dev_captions, parts.decoder, config)

    def loss(items: Tensor) -> Tensor:
        value: Tensor = module(train.batch(items).to(device), config.pretrain_label_smoothing)
        return value * train.share(items)

    @torch.inference_mode()
    def evaluate() -> dict[str, float]:
        return {"dev_loss": mean_loss(lambda items: module(dev.batch(items).to(device)), dev)}

    return Stage(
        name="pretraining",
        module=module,
        lengths=train.lengths,
        loss=loss,
        evaluate=evaluate,
        judge=lambda measured: -measured["dev_loss"],
        epochs=config.pretrain_epochs,
        batch_size=config.batch_size,
        learning_rate=config.pretrain_learning_rate,
    )


def mapper_pretraining_stage(
    parts: Parts,
    module: PrefixLanguageModel,
    unseen: Sequence[Sequence[str]],
    imagined: ImaginedEmbeddings,
    evaluate: Callable[[], dict[str, float]],
    config: TrainingConfig,
) -> Stage:
    train = tokenize([c for captions in unseen for c in captions], parts.decoder, config)
    owners = torch.tensor([i for i, captions in enumerate(unseen) for _ in captions])
    return Stage(
        name="pretraining",
        module=module,
        lengths=train.lengths,
        loss=_captioning_loss(
            module,
            train,
            lambda items: imagined.draw(owners[items]),
            config.pretrain_label_smoothing,
        ),
        evaluate=evaluate,
        judge=lambda measured: -measured["dev_loss"],
        epochs=config.pretrain_epochs,
        batch_size=config.batch_size,
        learning_rate=config.pretrain_learning_rate,
    )


def captioning_stage(
    parts: Parts,
    module: PrefixLanguageModel,
    splits: Splits,
    see: Callable[[Tensor], Tensor],
    evaluate: Callable[[], dict[str, float]],
    config: TrainingConfig,
) -> Stage:
    """`see` draws an embedding of each image, or of each caption where only captions are read:
    items `(B,)` → `(B, D)`."""
    train, train_images = caption_pairs(splits.train, parts.decoder, config)

    def seen(items: Tensor) -> Tensor:
        return see(items if config.text_only else train_images[items])

    few = len(splits.dev) < FEW_IMAGES
    return Stage(
        name="captioning",
        module=module,
        lengths=train.lengths,
        loss=_captioning_loss(module, train, seen, config.label_smoothing),
        evaluate=evaluate,
        judge=lambda measured: -measured["dev_loss"] if few else measured["cider_d"],
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
    )


def _captioning_loss(
    module: PrefixLanguageModel,
    captions: PaddedTexts,
    seen: Callable[[Tensor], Tensor],
    label_smoothing: float,
) -> Callable[[Tensor], Tensor]:
    """`seen` picks the embedding that goes with each caption: items `(B,)` → `(B, D)`."""
    device = module.decoder.device

    def loss(items: Tensor) -> Tensor:
        embedding = seen(items).to(device)
        value: Tensor = module(embedding, captions.batch(items).to(device), label_smoothing)
        return value * captions.share(items)

    return loss


def self_critical_stage(
    parts: Parts,
    module: PrefixLanguageModel,
    splits: Splits,
    see: Callable[[Tensor], Tensor],
    evaluate: Callable[[], dict[str, float]],
    config: TrainingConfig,
) -> Stage:
    """`see` draws an embedding of each image: items `(B,)` → `(B, D)`."""
    decoder = parts.decoder
    stop_id = decoder.end_of_text_id
    reward = CiderReward([example.captions for example in splits.train])

    def loss(items: Tensor) -> Tensor:
        module.train(False)  # what is sampled from is what is trained: no dropout
        embedding = see(items).to(decoder.model.device)
        targets = sample(
            module,
            embedding,
            samples=config.self_critical_samples,
            stop_id=stop_id,
            max_tokens=longest_caption(decoder, config),
        )
        rewards = [
            reward.score(int(items[row // config.self_critical_samples]), text, ended=ended)
            for row, (text, ended) in enumerate(_texts_of(targets, decoder))
        ]
        shaped = torch.tensor(rewards, device=embedding.device).view(len(items), -1)
        return self_critical_loss(module, embedding, targets.clone(), shaped)

    return Stage(
        name="self_critical",
        module=module,
        lengths=[1] * len(splits.train),
        loss=loss,
        evaluate=evaluate,
        judge=lambda measured: measured["cider_d"],
        epochs=config.self_critical_epochs,
        batch_size=config.self_critical_batch,
        learning_rate=config.self_critical_learning_rate,
    )


def _texts_of(targets: Tensor, decoder: Decoder) -> list[tuple[str, bool]]:
    """Each sampled caption, and whether it came to its end."""
    rows = [[token for token in row if token != IGNORED] for row in targets.tolist()]
    return [(decoder.text(row), row[-1] == decoder.end_of_text_id) for row in rows]
