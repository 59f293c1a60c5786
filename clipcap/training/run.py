"""A whole training run: data and a configuration in, a bundle out."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipcap import bundle as bundles
from clipcap import decoder as decoders
from clipcap import encoder as encoders
from clipcap.bundle import BundleConfig
from clipcap.decoder import Decoder
from clipcap.encoder import Encoder
from clipcap.errors import TrainingError
from clipcap.evaluation.scores import Scores, load_scorers, score
from clipcap.mappers import MapperConfig, MLPMapper, build_mapper
from clipcap.options import DecodingOptions
from clipcap.search import search
from clipcap.training.card import model_card
from clipcap.training.config import TrainingConfig
from clipcap.training.data import Example, Splits, read_splits, read_texts
from clipcap.training.embeddings import embed
from clipcap.training.model import (
    IGNORED,
    PADDED_TO,
    PaddedTexts,
    PrefixLanguageModel,
    TextLanguageModel,
)
from clipcap.training.self_critical import CiderReward, sample, self_critical_loss
from clipcap.training.stage import Stage, run_stage
from clipcap.training.text import END_OF_TEXT, clean, train_tokenizer

EVALUATION_BATCH = 100
FEW_IMAGES = 100
"""With fewer dev images CIDEr-D says too little: then the lowest dev loss is the best epoch."""


@dataclass
class Parts:
    """What a captioner is made of, before and while it is trained."""

    encoder: Encoder
    decoder: Decoder
    mapper: MLPMapper


def train(data: Path, out: Path, config: TrainingConfig) -> None:
    """Train on `data` and write the bundle `out`. What was done so far lies in `out`.work: a
    run that was killed goes on from there.

    1. Read the data and encode every image once.
    2. Where there is text without images, let the decoder read it.
    3. Train mapper and decoder on the captions.
    4. Where asked to, reward captions that score well.
    5. Write the bundle, with its scores on dev.

    Raises: DataError, BundleError, TrainingError.
    """
    load_scorers()  # or the first epoch would end in the error that they are not installed
    out = out.resolve()
    if out.exists() and not out.is_dir():
        raise TrainingError(f"{out} is a file; a bundle is a folder")
    splits = read_splits(data, held_out=config.held_out, seed=config.seed)
    torch.manual_seed(config.seed)
    config = _as_started_from(config)
    texts = _texts(config, splits)
    parts = _start(config, splits, texts)
    # What would fail after hours of training fails now.
    bundles.require_apart(out, parts.encoder)
    _longest_caption(parts.decoder, config)
    work = out.with_name(out.name + ".work")
    _claim_work_folder(work, config, splits, texts)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    parts.encoder.visual.to(device)
    embeddings = {
        name: _embed(parts.encoder, examples, work / "embeddings", name, config)
        for name, examples in (("train", splits.train), ("dev", splits.dev))
    }
    parts.encoder.visual.to("cpu")
    parts.decoder.to(device)
    parts.mapper.to(device)
    history: dict[str, Any] = {}
    if texts:
        stage = _pretraining_stage(parts, texts, splits, config)
        history["pretraining"] = run_stage(stage, config, work)
    module = PrefixLanguageModel(parts.mapper, parts.decoder.model)
    evaluate = _dev_evaluation(parts, module, splits, embeddings["dev"], config)
    if config.epochs:
        stage = _captioning_stage(parts, module, splits, embeddings["train"], evaluate, config)
        history["captioning"] = run_stage(stage, config, work)
    if config.self_critical_epochs:
        stage = _self_critical_stage(parts, module, splits, embeddings["train"], evaluate, config)
        history["self_critical"] = run_stage(stage, config, work)
    parts.decoder.to(torch.device("cpu"))
    parts.mapper.to("cpu")
    scores = score_dev(parts, embeddings["dev"], splits.dev, config.decoding)
    _save(out, parts, config, splits, history, scores)


def _claim_work_folder(
    work: Path, config: TrainingConfig, splits: Splits, texts: Sequence[str]
) -> None:
    """A run goes on only as it was begun, on the same data."""
    record = json.loads(config.model_dump_json())
    record["data"] = _digest(splits, texts)
    path = work / "run.json"
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(record, indent=2) + "\n")
        os.replace(part, path)
        return
    begun = json.loads(path.read_text())
    changed = sorted(key for key in record if begun.get(key) != record[key])
    if changed:
        raise TrainingError(
            f"{work} holds a run that was begun with other values of {', '.join(changed)}: "
            "remove the folder to start anew, or choose another --out"
        )


def _digest(splits: Splits, texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for examples in (splits.train, splits.dev):
        digest.update(b"images\0")
        for example in examples:
            digest.update("\0".join([example.path.name, *example.captions, "\n"]).encode())
    for text in texts:
        digest.update(f"{text}\n".encode())
    return digest.hexdigest()[:16]


def _as_started_from(config: TrainingConfig) -> TrainingConfig:
    """What a bundle has fixed already is not for a run that goes on from it to choose."""
    if not config.start_from:
        return config
    for field in ("encoder", "decoder"):
        if getattr(config, field):
            raise TrainingError(
                f"{field}: the bundle to start from, {config.start_from!r}, brings its own; "
                "leave it out, or set start_from to nothing"
            )
    begun = bundles.read_config(bundles.locate(config.start_from))
    return config.model_copy(
        update={
            "prefix_length": begun.mapper.prefix_length,
            "normalize_embedding": begun.normalize_embedding,
            "presentation": begun.presentation,
        }
    )


def _texts(config: TrainingConfig, splits: Splits) -> list[str]:
    """What the decoder reads first, without any caption that dev is measured with."""
    if config.pretrain_text is None:
        return []
    held_out = {_clean(c, config) for example in splits.dev for c in example.captions}
    texts = [_clean(text, config) for text in read_texts(config.pretrain_text)]
    texts += [_clean(c, config) for example in splits.train for c in example.captions]
    return [text for text in texts if text and text not in held_out]


def _start(config: TrainingConfig, splits: Splits, texts: Sequence[str]) -> Parts:
    if config.start_from:
        bundle = bundles.load(config.start_from)
        parts = Parts(bundle.encoder, bundle.decoder, bundle.mapper)
    else:
        parts = _new_parts(config, splits, texts)
    _set_dropout(parts.mapper, config.mapper_dropout)
    _set_dropout(parts.decoder.model, config.dropout)
    return parts


def _set_dropout(module: torch.nn.Module, share: float) -> None:
    for part in module.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = share


def _new_parts(config: TrainingConfig, splits: Splits, texts: Sequence[str]) -> Parts:
    if not config.encoder:
        raise TrainingError("name an encoder, or a bundle to start from")
    folder = Path(config.encoder)
    encoder = (
        encoders.load_folder(folder) if folder.is_dir() else encoders.load_named(config.encoder)
    )
    decoder = (
        decoders.load_named(config.decoder)
        if config.decoder
        else _new_decoder(config, splits, texts)
    )
    mapper = build_mapper(
        MapperConfig(
            kind="mlp",
            embedding_dim=encoder.embedding_dim,
            prefix_length=config.prefix_length,
            decoder_dim=decoder.dim,
        )
    )
    return Parts(encoder, decoder, mapper)


def _new_decoder(config: TrainingConfig, splits: Splits, texts: Sequence[str]) -> Decoder:
    captions = texts or [_clean(c, config) for example in splits.train for c in example.captions]
    return decoders.new_decoder(
        train_tokenizer(captions, config.vocab_size),
        n_layer=config.layers,
        n_embd=config.width,
        n_head=config.heads,
        n_positions=config.context,
    )


def _embed(
    encoder: Encoder, examples: Sequence[Example], cache: Path, label: str, config: TrainingConfig
) -> Tensor:
    embeddings = embed(encoder, [example.path for example in examples], cache, label=label)
    return (
        torch.nn.functional.normalize(embeddings, dim=-1)
        if config.normalize_embedding
        else (embeddings)
    )


def _tokens(captions: Sequence[str], decoder: Decoder, config: TrainingConfig) -> PaddedTexts:
    longest = _longest_caption(decoder, config)
    ids = [decoder.encode(caption)[:longest] for caption in captions]
    return PaddedTexts(ids, decoder.end_of_text_id)


def _longest_caption(decoder: Decoder, config: TrainingConfig) -> int:
    """In tokens without end-of-text: with it and its padding, it fits after the prefix."""
    room = decoder.positions - config.prefix_length + 1  # the last token is not read
    longest = min(config.max_caption_tokens, room // PADDED_TO * PADDED_TO - 1)
    if longest < 1:
        raise TrainingError(
            f"prefix_length: a prefix of {config.prefix_length} leaves no room for a caption "
            f"in the decoder's {decoder.positions} positions"
        )
    return longest


def _mean_loss(loss: Callable[[Tensor], Tensor], texts: PaddedTexts) -> float:
    """Nats per token over all texts, each token counted once."""
    total = 0.0
    for items in torch.split(torch.arange(len(texts.lengths)), EVALUATION_BATCH):
        total += loss(items).item() * sum(texts.lengths[item] for item in items.tolist())
    return total / sum(texts.lengths)


def _pretraining_stage(
    parts: Parts, texts: Sequence[str], splits: Splits, config: TrainingConfig
) -> Stage:
    module = TextLanguageModel(
        parts.decoder.model, parts.mapper.config.prefix_length, parts.decoder.end_of_text_id
    )
    device = parts.decoder.model.device
    train = _tokens(texts, parts.decoder, config)
    dev_captions = [_clean(c, config) for example in splits.dev for c in example.captions]
    dev = _tokens(dev_captions, parts.decoder, config)

    def loss(items: Tensor) -> Tensor:
        value: Tensor = module(train.batch(items).to(device), config.label_smoothing)
        return value

    @torch.inference_mode()
    def evaluate() -> dict[str, float]:
        return {"dev_loss": _mean_loss(lambda items: module(dev.batch(items).to(device)), dev)}

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


def _dev_evaluation(
    parts: Parts,
    module: PrefixLanguageModel,
    splits: Splits,
    embeddings: Tensor,
    config: TrainingConfig,
) -> Callable[[], dict[str, float]]:
    """What is measured after an epoch: the loss on dev, and the scores of greedy search."""
    device = parts.decoder.model.device
    dev, dev_images = _pairs(splits.dev, parts.decoder, config)

    @torch.inference_mode()
    def evaluate() -> dict[str, float]:
        dev_loss = _mean_loss(
            lambda items: module(
                embeddings[dev_images[items]].to(device), dev.batch(items).to(device)
            ),
            dev,
        )
        greedy = DecodingOptions(method="greedy")
        scores = score_dev(parts, embeddings, splits.dev, greedy)
        return {"dev_loss": dev_loss, **scores.as_dict()}

    return evaluate


def _captioning_stage(
    parts: Parts,
    module: PrefixLanguageModel,
    splits: Splits,
    embeddings: Tensor,
    evaluate: Callable[[], dict[str, float]],
    config: TrainingConfig,
) -> Stage:
    device = parts.decoder.model.device
    train, train_images = _pairs(splits.train, parts.decoder, config)

    def loss(items: Tensor) -> Tensor:
        embedding = embeddings[train_images[items]].to(device)
        value: Tensor = module(embedding, train.batch(items).to(device), config.label_smoothing)
        return value

    few = len(splits.dev) < FEW_IMAGES
    return Stage(
        name="captioning",
        module=module,
        lengths=train.lengths,
        loss=loss,
        evaluate=evaluate,
        judge=lambda measured: -measured["dev_loss"] if few else measured["cider_d"],
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
    )


def _self_critical_stage(
    parts: Parts,
    module: PrefixLanguageModel,
    splits: Splits,
    embeddings: Tensor,
    evaluate: Callable[[], dict[str, float]],
    config: TrainingConfig,
) -> Stage:
    decoder = parts.decoder
    stop_id = decoder.end_of_text_id
    reward = CiderReward([example.captions for example in splits.train])

    def loss(items: Tensor) -> Tensor:
        module.train(False)  # what is sampled from is what is trained: no dropout
        embedding = embeddings[items].to(decoder.model.device)
        targets = sample(
            module,
            embedding,
            samples=config.self_critical_samples,
            stop_id=stop_id,
            max_tokens=_longest_caption(decoder, config),
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


def _pairs(
    examples: Sequence[Example], decoder: Decoder, config: TrainingConfig
) -> tuple[PaddedTexts, Tensor]:
    """Each caption of each image, and the index of its image `(N,)`."""
    pairs = [(i, _clean(c, config)) for i, e in enumerate(examples) for c in e.captions]
    texts = _tokens([caption for _, caption in pairs], decoder, config)
    return texts, torch.tensor([image for image, _ in pairs])


def score_dev(
    parts: Parts,
    embeddings: Tensor,
    examples: Sequence[Example],
    options: DecodingOptions,
) -> Scores:
    """Caption dev from its embeddings and score the best candidates."""
    texts = []
    with torch.inference_mode():
        for batch in torch.split(embeddings, EVALUATION_BATCH):
            prefix = parts.mapper(batch.to(parts.decoder.model.device))
            found = search(parts.decoder.model, prefix, parts.decoder.end_of_text_id, options)
            texts += [parts.decoder.text(candidates[0].token_ids) for candidates in found]
    return score(texts, [example.captions for example in examples])


def _clean(caption: str, config: TrainingConfig) -> str:
    return clean(caption, lowercase=config.lowercase)


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
        card=card,
    )
