"""Mappers: from a CLIP embedding `(B, D)` to a prefix of decoder embeddings `(B, K, E)`.

Source: Mokady, Hertz, Bermano, "ClipCap: CLIP Prefix for Image Captioning", arXiv 2111.09734.
The weights' names are those of the authors' checkpoints, less `clip_project.`
"""

from __future__ import annotations

from clipcap.mappers.config import LinearConfig, MapperConfig, MLPConfig, TransformerConfig
from clipcap.mappers.feed_forward import LinearMapper, MLPMapper
from clipcap.mappers.transformer import TransformerMapper

__all__ = [
    "LinearConfig",
    "LinearMapper",
    "MLPConfig",
    "MLPMapper",
    "Mapper",
    "MapperConfig",
    "TransformerConfig",
    "TransformerMapper",
    "build_mapper",
]

Mapper = MLPMapper | LinearMapper | TransformerMapper


def build_mapper(config: MapperConfig) -> Mapper:
    """A mapper with fresh weights."""
    match config:
        case MLPConfig():
            return MLPMapper(config)
        case LinearConfig():
            return LinearMapper(config)
        case TransformerConfig():
            return TransformerMapper(config)
