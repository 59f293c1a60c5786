"""A whole training run: data and a configuration in, a bundle out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from clipcap import bundle as bundles
from clipcap.bundle import BundleConfig
from clipcap.data import Example, Splits, read_splits, read_texts
from clipcap.encoder import Encoder
from clipcap.errors import TrainingError
from clipcap.evaluation.scores import Scores, load_scorers
from clipcap.expected_cider import ExpectedCider
from clipcap.training.adapt import adapt, merge
from clipcap.training.captions import clean_caption, longest_caption
from clipcap.training.card import model_card
from clipcap.training.config import TrainingConfig
from clipcap.training.curve import draw_curve
from clipcap.training.dev import dev_evaluation, score_dev
from clipcap.training.embeddings import any_view, embed
from clipcap.training.expected_cider import See, expected_cider_stage
from clipcap.training.imagined import BlurredEmbeddings, ImaginedEmbeddings
from clipcap.training.model import PrefixLanguageModel
from clipcap.training.parts import Parts, as_started_from, origin, start
from clipcap.training.stage import Stage, run_stage
from clipcap.training.stages import (
    captioning_stage,
    mapper_pretraining_stage,
    pretraining_stage,
    self_critical_stage,
)
from clipcap.training.standardize import StandardizedMapper
from clipcap.training.text import END_OF_TEXT, unspelled
from clipcap.training.text_only import embed_captions, text_side, with_noise
from clipcap.training.together import tune_together
from clipcap.training.tower import tune_tower
from clipcap.training.work_folder import claimed


def train(data: Path, out: Path, config: TrainingConfig) -> None:
    """Train on `data` and write the bundle `out`. What was done so far lies in `out`.work: a
    run that was killed goes on from there.

    1. Read the data; where asked to, fine-tune the image tower on it; encode every image once.
    2. Where there is text without images, let the decoder read it, or tell it from an
       embedding that its image might have.
    3. Train mapper and decoder on the captions.
    4. Where asked to, go on with the image tower learning, too; encode every image once more.
    5. Where asked to, reward captions that score well.
    6. Where asked to, learn what CIDEr-D a caption can be expected to have.
    7. Write the bundle, with its scores on dev.

    Raises: DataError, BundleError, TrainingError.
    """
    # One for all that ask for it later. Others may wait for the main process to embed and measure.
    PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))
    load_scorers()  # or the first epoch would end in the error that they are not installed
    out = out.resolve()
    if out.exists() and not out.is_dir():
        raise TrainingError(f"{out} is a file; a bundle is a folder")
    bundles.require_ours(out)
    splits = read_splits(data, held_out=config.held_out, seed=config.seed)
    torch.manual_seed(config.seed)
    config = as_started_from(config)
    unseen = _unseen(config, splits)
    told = _read_first(unseen, config, splits)
    parts = start(config, splits, [c for captions in told for c in captions])
    # What would fail after hours of training fails now.
    bundles.require_apart(out, parts.encoder)
    longest_caption(parts.decoder, config)
    if _reads_text(config):
        text_side(parts.encoder)
    work = out.with_name(out.name + ".work")
    with claimed(work, config, splits, unseen, origin(parts, config)):
        _train(parts, splits, unseen, told, config, work, out)


def _train(
    parts: Parts,
    splits: Splits,
    unseen: Sequence[tuple[str, ...]],
    told: Sequence[tuple[str, ...]],
    config: TrainingConfig,
    work: Path,
    out: Path,
) -> None:
    """`told` are the unseen, and then what train's captions tell of."""
    processes = PartialState()
    device = processes.device
    history: dict[str, Any] = {}
    if config.tower_epochs:
        parts.encoder, history["tower"] = tune_tower(parts.encoder, splits, unseen, config, work)
    train, dev = _embeddings(parts.encoder, splits, config, work)
    parts.decoder.to(device)
    imagined = ImaginedEmbeddings(parts.encoder, told, splits.train, train)
    mapper = StandardizedMapper(parts.mapper, train, learned=bool(config.start_from)).to(device)
    if unseen and config.pretrain_epochs:
        stage = _pretraining(parts, mapper, imagined, told, splits, dev, config)
        history["pretraining"] = run_stage(stage, config, work)
    torch.manual_seed(config.seed)  # a run that goes on adds the same, and so does each process
    adapt(parts.decoder, config)
    module = PrefixLanguageModel(mapper, parts.decoder.model)
    evaluate = dev_evaluation(parts.decoder, module, splits, dev, config)
    if config.epochs:
        see = _sight(parts.encoder, splits, train, config, config.blur)
        stage = captioning_stage(parts, module, splits, see, evaluate, config)
        history["captioning"] = run_stage(stage, config, work)
    if config.together_epochs:
        parts.encoder, history["together"] = tune_together(parts, module, splits, config, work)
        train, dev = _embeddings(parts.encoder, splits, config, work)
        imagined = ImaginedEmbeddings(parts.encoder, told, splits.train, train)
        evaluate = dev_evaluation(parts.decoder, module, splits, dev, config)
    if config.self_critical_epochs:
        see = _sight(parts.encoder, splits, train, config, config.blur)
        stage = self_critical_stage(parts, module, splits, see, evaluate, config)
        history["self_critical"] = run_stage(stage, config, work)
    if config.expected_cider_epochs:
        see = _sight(parts.encoder, splits, train, config, config.expected_cider_blur)
        stage, parts.expected_cider = _expecting(
            imagined, see, unseen, splits, (train, dev), config
        )
        history["expected_cider"] = run_stage(stage, config, work)
    merge(parts.decoder)
    mapper.merged()
    if processes.is_main_process:
        scores = score_dev(
            parts.mapper, parts.decoder, dev, splits.dev, config.decoding, parts.expected_cider
        )
        parts.to_cpu()
        _save(out, parts, config, splits, history, scores)
        draw_curve(history, out.with_name(f"{out.name}.png"))
    processes.wait_for_everyone()


def _reads_text(config: TrainingConfig) -> bool:
    """Whether CLIP's text side has a part in it."""
    blurs = config.blur or config.expected_cider_blur
    expects = config.expected_cider_epochs and config.pretrain_text
    return bool(config.text_only or config.pretrain_mapper or blurs or expects)


def _sight(
    encoder: Encoder, splits: Splits, embeddings: Tensor, config: TrainingConfig, blur: float
) -> See:
    """What is seen of what is trained on: items `(B,)` → `(B, D)`."""
    if config.text_only:
        return lambda items: with_noise(embeddings[items], config.text_noise)
    if blur:
        return BlurredEmbeddings(encoder, splits.train, embeddings, blur).draw
    return partial(any_view, embeddings)


def _pretraining(
    parts: Parts,
    mapper: StandardizedMapper,
    imagined: ImaginedEmbeddings,
    told: Sequence[tuple[str, ...]],
    splits: Splits,
    dev: Tensor,
    config: TrainingConfig,
) -> Stage:
    if not config.pretrain_mapper:
        texts = [caption for captions in told for caption in captions]
        return pretraining_stage(parts, texts, splits, config)
    module = PrefixLanguageModel(mapper, parts.decoder.model)
    evaluate = dev_evaluation(parts.decoder, module, splits, dev, config)
    return mapper_pretraining_stage(parts, module, told, imagined, evaluate, config)


def _expecting(
    imagined: ImaginedEmbeddings,
    see: See,
    unseen: Sequence[tuple[str, ...]],
    splits: Splits,
    embeddings: tuple[Tensor, Tensor],
    config: TrainingConfig,
) -> tuple[Stage, ExpectedCider]:
    """`see` draws an embedding of train's images; the embeddings are those of train and dev."""
    train, dev = embeddings
    count = len(splits.train)

    def see_any(items: Tensor) -> Tensor:
        if not unseen:
            return see(items)
        seen = items < count
        found = torch.empty(len(items), train.shape[-1])
        found[seen] = see(items[seen])
        found[~seen] = imagined.draw(items[~seen] - count)
        return found

    return expected_cider_stage(
        [example.captions for example in splits.train],
        unseen,
        see_any,
        ([example.captions for example in splits.dev], dev),
        train,
        config,
    )


def _unseen(config: TrainingConfig, splits: Splits) -> list[tuple[str, ...]]:
    """The captions of each image that is not there."""
    if config.pretrain_text is None:
        return []
    return _without_dev(read_texts(config.pretrain_text), config, splits)


def _read_first(
    unseen: Sequence[tuple[str, ...]], config: TrainingConfig, splits: Splits
) -> list[tuple[str, ...]]:
    """What the decoder reads before it captions: those captions and train's."""
    if not unseen:
        return []
    return [*unseen, *_without_dev([e.captions for e in splits.train], config, splits)]


def _without_dev(
    told: Sequence[Sequence[str]], config: TrainingConfig, splits: Splits
) -> list[tuple[str, ...]]:
    """Cleaned, and without any caption that dev is measured with, however it is spelled."""
    held_out = {unspelled(caption) for example in splits.dev for caption in example.captions}
    cleaned = [tuple(clean_caption(caption, config) for caption in captions) for captions in told]
    left = [
        tuple(c for c in captions if c and unspelled(c) not in held_out) for captions in cleaned
    ]
    return [captions for captions in left if captions]


def _embeddings(
    encoder: Encoder, splits: Splits, config: TrainingConfig, work: Path
) -> tuple[Tensor, Tensor]:
    """Of what is trained on, `(N, V, D)`, or of its captions where there are no images, `(M, D)`;
    and of dev, `(N, D)`."""
    processes = PartialState()
    encoder.to(processes.device)
    encoder.compute_in("bf16" if config.bf16 else "fp32")
    with processes.main_process_first():
        train = (
            embed_captions(encoder, [c for e in splits.train for c in e.captions])
            if config.text_only
            else _embed(encoder, splits.train, work, "train", config, views=config.views)
        )
        dev = _embed(encoder, splits.dev, work, "dev", config)[:, 0]
    encoder.compute_in("fp32")
    encoder.to(torch.device("cpu"))
    return train, dev


def _embed(
    encoder: Encoder,
    examples: Sequence[Example],
    work: Path,
    label: str,
    config: TrainingConfig,
    *,
    views: int = 1,
) -> Tensor:
    """`(N, V, D)`."""
    pictures = [example.image for example in examples]
    cache, unit = work / "embeddings", config.normalize_embedding
    return embed(encoder, pictures, cache, label=label, views=views, unit=unit)


def _without_folders(config: TrainingConfig) -> dict[str, Any]:
    """The configuration as it is published: files by their names, no path of this machine."""
    published: dict[str, Any] = json.loads(config.model_dump_json())
    for field in ("start_from", "encoder", "decoder", "pretrain_text"):
        if published[field] and Path(published[field]).exists():
            published[field] = Path(published[field]).name
    return published


def _save(
    out: Path,
    parts: Parts,
    config: TrainingConfig,
    splits: Splits,
    history: dict[str, Any],
    scores: Scores,
) -> None:
    bundle_config = BundleConfig(
        name=config.name,
        encoder=parts.encoder.source,
        decoder=None,  # whatever its name was, it has been trained since
        mapper=parts.mapper.config,
        expected_cider=parts.expected_cider and parts.expected_cider.config,
        normalize_embedding=config.normalize_embedding,
        stop_token=parts.decoder.tokenizer.eos_token or END_OF_TEXT,
        presentation=config.presentation,
        decoding=config.decoding,
        licence=config.licence,
        provenance={
            "config": _without_folders(config),
            "train_images": len(splits.train),
            "dev_images": len(splits.dev),
            "dev_scores": scores.as_dict(),
            "history": history,
        },
    )
    card = model_card(bundle_config)
    bundles.save(
        out,
        bundle_config,
        encoder=parts.encoder,
        decoder=parts.decoder,
        mapper=parts.mapper,
        expected_cider=parts.expected_cider,
        card=card,
    )
