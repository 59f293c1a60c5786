"""What the shapes of a mapper follow from; `kind` tells which of the three it is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator


class _Sizes(BaseModel):
    """D embedding_dim, K prefix_length, E decoder_dim."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    embedding_dim: PositiveInt
    prefix_length: PositiveInt
    decoder_dim: PositiveInt


class MLPConfig(_Sizes):
    kind: Literal["mlp"] = "mlp"


class LinearConfig(_Sizes):
    kind: Literal["linear"] = "linear"


class TransformerConfig(_Sizes):
    """C clip_length: how many vectors the embedding becomes before the layers read it."""

    kind: Literal["transformer"] = "transformer"
    clip_length: PositiveInt
    layers: PositiveInt = 8
    heads: PositiveInt = 8

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TransformerConfig:
        if self.decoder_dim % self.heads:
            raise ValueError(
                f"decoder_dim, {self.decoder_dim}, must be a multiple of heads, {self.heads}"
            )
        return self


MapperConfig = Annotated[MLPConfig | LinearConfig | TransformerConfig, Field(discriminator="kind")]
