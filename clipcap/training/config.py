"""One training run, described by a TOML file; the command line overrides any field."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from clipcap.errors import OptionsError, TrainingError
from clipcap.options import DecodingOptions


class TrainingConfig(BaseModel):
    """Every choice of a run. It is stored in the bundle that the run makes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field("my-captioner", description="the bundle's name")
    seed: int = 0

    start_from: str | None = Field(
        "bundled", description="the bundle to go on from; empty: the parts below"
    )
    encoder: str | None = Field(None, description="'model:pretrained_tag' or an open_clip folder")
    decoder: str | None = Field(None, description="'gpt2' and the like; empty: a new small GPT-2")

    vocab_size: int = Field(4096, gt=256, description="tokens of a new decoder")
    layers: int = Field(4, gt=0, description="layers of a new decoder")
    width: int = Field(384, gt=0, description="width E of a new decoder")
    heads: int = Field(6, gt=0, description="attention heads of a new decoder")
    context: int = Field(64, gt=0, description="positions of a new decoder")
    prefix_length: int = Field(8, gt=0, description="vectors K that the mapper makes")
    mapper: Literal["mlp", "transformer"] = "mlp"
    clip_length: int = Field(10, gt=0, description="vectors C that a transformer mapper reads")
    mapper_layers: int = Field(8, gt=0, description="of a transformer mapper")
    mapper_heads: int = Field(8, gt=0, description="of a transformer mapper")
    normalize_embedding: bool = True
    dropout: float = Field(0.1, ge=0, lt=1, description="in the decoder")
    mapper_dropout: float = Field(0.3, ge=0, lt=1)
    freeze_decoder: bool = Field(False, description="train the mapper alone")
    lora_rank: int = Field(
        0, ge=0, description="train the decoder by low-rank additions of this rank; 0: all of it"
    )

    lowercase: bool = Field(True, description="train on lower-cased captions")
    presentation: Literal["raw", "sentence"] = "sentence"
    held_out: float = Field(
        0.1, gt=0, lt=1, description="share kept for dev where the data has no dev folder"
    )

    tower_epochs: int = Field(0, ge=0, description="of fine-tuning the image tower on the captions")
    tower_groups: int = Field(10, gt=0, description="layer groups of the tower that are tuned")
    tower_batch: int = Field(64, gt=1, description="images in one step")
    tower_learning_rate: float = Field(3e-4, gt=0)
    tower_text_learning_rate: float = Field(1e-3, gt=0, description="for the text side")
    tower_drop_path: float = Field(
        0, ge=0, lt=1, description="share of the images that pass by the deepest block of the tower"
    )
    tower_paraphrases: float = Field(
        0, ge=0, description="weight of pulling together the captions of one unseen image"
    )
    blur: float = Field(
        0, ge=0, description="share of what captions do not say of another image, put on each"
    )
    views: int = Field(1, gt=0, description="of each image to train on, the image and crops of it")

    pretrain_text: Path | None = Field(
        None, description="captions of unseen images, JSON lines, for the decoder to read first"
    )
    pretrain_epochs: int = Field(1, ge=0)
    pretrain_learning_rate: float = Field(1e-3, gt=0)
    pretrain_mapper: bool = Field(
        False, description="tell each from an embedding that its image might have"
    )
    pretrain_label_smoothing: float = Field(0.05, ge=0, lt=1)

    text_only: bool = Field(
        False, description="learn to caption from the captions alone, through CLIP's text side"
    )
    text_noise: float = Field(
        0.016, ge=0, description="variance of what is added to a text's embedding in each direction"
    )
    epochs: int = Field(8, ge=0, description="over the captions of images")
    batch_size: int = Field(128, gt=0, description="captions in one step, over all processes")
    accumulation: int = Field(
        1, gt=0, description="parts of a batch of captions, one in memory at a time"
    )
    patience: int = Field(0, ge=0, description="epochs without a better one to stop after; 0: none")
    learning_rate: float = Field(6e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps")
    label_smoothing: float = Field(0.05, ge=0, lt=1)
    clip_gradients: float = Field(1.0, gt=0)
    max_caption_tokens: int = Field(40, gt=0, description="longer captions are cut")
    average: float = Field(
        0, ge=0, lt=1, description="decay of the average of weights that is kept; 0: no average"
    )
    bf16: bool = Field(False, description="compute in bfloat16; weights stay float32")
    checkpoint_steps: int = Field(200, gt=0)
    tensorboard: bool = Field(False, description="write losses and scores for TensorBoard")

    together_epochs: int = Field(
        0, ge=0, description="of training tower, mapper and decoder together, after captioning"
    )
    together_batch: int = Field(32, gt=1, description="images in one step")
    together_captions: int = Field(4, gt=0, description="of each image in one step")
    together_learning_rate: float = Field(1e-4, gt=0)

    self_critical_epochs: int = Field(0, ge=0, description="over the images, rewarded by CIDEr-D")
    self_critical_batch: int = Field(64, gt=0, description="images in one step")
    self_critical_samples: int = Field(5, gt=1, description="captions drawn for each image")
    self_critical_learning_rate: float = Field(5e-5, gt=0)

    expected_cider_epochs: int = Field(
        0, ge=0, description="of learning what CIDEr a caption can be expected to have, to rank by"
    )
    expected_cider_learning_rate: float = Field(3e-3, gt=0)
    expected_cider_blur: float = Field(0, ge=0, description="as blur, for what is learned then")

    decoding: DecodingOptions = DecodingOptions(beam_size=3)
    licence: str = ""

    @model_validator(mode="after")
    def _frozen_or_adapted(self) -> TrainingConfig:
        if self.freeze_decoder and self.lora_rank:
            raise ValueError("freeze_decoder and lora_rank exclude each other")
        return self

    @model_validator(mode="after")
    def _text_stands_for_images(self) -> TrainingConfig:
        if self.text_only and not self.normalize_embedding:
            raise ValueError("text_only needs normalize_embedding: texts and images differ in norm")
        of_images = (
            self.tower_epochs,
            self.together_epochs,
            self.self_critical_epochs,
            self.blur,
            self.pretrain_mapper,
            self.expected_cider_epochs,
        )
        if self.text_only and (any(of_images) or self.views > 1):
            raise ValueError(
                "text_only knows no images: no views or blur; no pretrain_mapper; no epochs of "
                "tower, together, self_critical or expected_cider"
            )
        return self

    @model_validator(mode="after")
    def _what_ranks_is_learned(self) -> TrainingConfig:
        if self.decoding.rank_by == "expected_cider" and not self.expected_cider_epochs:
            raise ValueError("decoding.rank_by: expected_cider needs expected_cider_epochs")
        return self

    @model_validator(mode="after")
    def _mapper_begins(self) -> TrainingConfig:
        if self.pretrain_mapper and (self.start_from or not self.pretrain_text):
            raise ValueError(
                "pretrain_mapper needs pretrain_text and a new mapper: set start_from to nothing"
            )
        return self

    @model_validator(mode="after")
    def _unseen_images_are_told_of(self) -> TrainingConfig:
        if self.tower_paraphrases and not self.pretrain_text:
            raise ValueError("tower_paraphrases needs pretrain_text")
        return self

    @model_validator(mode="after")
    def _heads_divide_width(self) -> TrainingConfig:
        if self.width % self.heads:
            raise ValueError(f"width, {self.width}, must be a multiple of heads, {self.heads}")
        return self


def read_config(path: Path | None, overrides: Mapping[str, Any]) -> TrainingConfig:
    """Raises: TrainingError, naming the file or field."""
    data: dict[str, Any] = {}
    if path is not None:
        try:
            data = tomllib.loads(path.read_text())
        except OSError as error:
            raise TrainingError(f"{path}: {error.strerror}") from error
        except ValueError as error:  # neither TOML nor, perhaps, UTF-8
            raise TrainingError(f"{path}: {error}") from error
    source = path or "options"
    try:
        return TrainingConfig.model_validate({**data, **overrides})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise TrainingError(f"{source}: {field or 'fields'}: {first['msg']}") from error
    except OptionsError as error:
        raise TrainingError(f"{source}: decoding: {error}") from error
