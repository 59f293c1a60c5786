"""How much of the decoder learns to caption: all of it, none, or low-rank additions to it.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685.
"""

from __future__ import annotations

import warnings

from peft import LoraConfig, PeftModel, get_peft_model

from clipcap.decoder import Decoder
from clipcap.training.config import TrainingConfig

ADAPTED = ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]


def adapt(decoder: Decoder, config: TrainingConfig) -> None:
    """Freeze the decoder, or add what is trained in its place, as the run wants."""
    if config.freeze_decoder:
        decoder.model.requires_grad_(False)
    if config.lora_rank:
        lora = LoraConfig(
            r=config.lora_rank,
            lora_alpha=2 * config.lora_rank,
            lora_dropout=config.dropout,
            target_modules=ADAPTED,
            fan_in_fan_out=True,  # GPT-2 stores its matrices transposed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft's, of a name in transformers
            decoder.model = get_peft_model(decoder.model, lora)  # type: ignore[assignment]


def merge(decoder: Decoder) -> None:
    """Make of what was added a part of the decoder: a bundle holds a plain GPT-2."""
    if isinstance(decoder.model, PeftModel):
        decoder.model = decoder.model.merge_and_unload()
    decoder.model.requires_grad_(True)
