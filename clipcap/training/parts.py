"""What a run trains: an encoder, a mapper and a decoder, from a bundle or new."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from clipcap import bundle as bundles
from clipcap import decoder as decoders
from clipcap import encoder as encoders
from clipcap.data import Splits
from clipcap.decoder import Decoder
from clipcap.encoder import Encoder
from clipcap.errors import TrainingError
from clipcap.expected_cider import ExpectedCider
from clipcap.mappers import Mapper, MapperConfig, MLPConfig, TransformerConfig, build_mapper
from clipcap.models import locate
from clipcap.training.captions import clean_caption
from clipcap.training.config import TrainingConfig
from clipcap.training.text import train_tokenizer

BROUGHT = (
    *("encoder", "decoder", "vocab_size", "layers", "width", "heads", "context"),
    *("prefix_length", "mapper", "clip_length", "mapper_layers", "mapper_heads"),
    *("normalize_embedding", "presentation"),
)
"""Fields that a bundle to start from has settled."""


@dataclass
class Parts:
    """What a captioner is made of, before and while it is trained."""

    encoder: Encoder
    decoder: Decoder
    mapper: Mapper
    expected_cider: ExpectedCider | None = None

    def to_cpu(self) -> None:
        self.mapper.to("cpu")
        self.decoder.to(torch.device("cpu"))
        if self.expected_cider is not None:
            self.expected_cider.to("cpu")


def as_started_from(config: TrainingConfig) -> TrainingConfig:
    """What a bundle has fixed already is not for a run that goes on from it to choose."""
    if not config.start_from:
        return config
    for field in BROUGHT:
        chosen = getattr(config, field)
        if chosen not in (None, "", TrainingConfig.model_fields[field].default):
            raise TrainingError(
                f"{field}: the bundle to start from, {config.start_from!r}, brings its own; "
                "leave it out, or set start_from to nothing"
            )
    begun = bundles.read_config(locate(config.start_from))
    return config.model_copy(
        update={
            "prefix_length": begun.mapper.prefix_length,
            "normalize_embedding": begun.normalize_embedding,
            "presentation": begun.presentation,
        }
    )


def start(config: TrainingConfig, splits: Splits, texts: Sequence[str]) -> Parts:
    if config.start_from:
        bundle = bundles.load(locate(config.start_from))
        parts = Parts(bundle.encoder, bundle.decoder, bundle.mapper)
    else:
        parts = _new_parts(config, splits, texts)
    _set_dropout(parts.mapper, config.mapper_dropout)
    _set_dropout(parts.decoder.model, config.dropout)
    return parts


def origin(parts: Parts, config: TrainingConfig) -> str:
    """Changes with the weights that a run starts from, which may lie in a folder of the same
    name."""
    if config.start_from:
        return bundles.revision_of(locate(config.start_from))
    return parts.encoder.fingerprint()


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
    mapper = build_mapper(_mapper_config(config, encoder.embedding_dim, decoder.dim))
    return Parts(encoder, decoder, mapper)


def _mapper_config(config: TrainingConfig, embedding_dim: int, decoder_dim: int) -> MapperConfig:
    sizes = {
        "embedding_dim": embedding_dim,
        "prefix_length": config.prefix_length,
        "decoder_dim": decoder_dim,
    }
    if config.mapper == "mlp":
        return MLPConfig(**sizes)
    if decoder_dim % config.mapper_heads:
        raise TrainingError(
            f"mapper_heads: the decoder's width, {decoder_dim}, is no multiple of "
            f"{config.mapper_heads}"
        )
    return TransformerConfig(
        **sizes,
        clip_length=config.clip_length,
        layers=config.mapper_layers,
        heads=config.mapper_heads,
    )


def _new_decoder(config: TrainingConfig, splits: Splits, texts: Sequence[str]) -> Decoder:
    captions = texts or [
        clean_caption(c, config) for example in splits.train for c in example.captions
    ]
    return decoders.new_decoder(
        train_tokenizer(captions, config.vocab_size),
        n_layer=config.layers,
        n_embd=config.width,
        n_head=config.heads,
        n_positions=config.context,
    )
