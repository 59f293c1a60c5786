"""The decoder: a GPT-2 language model and its tokenizer, from transformers."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

from clipcap.errors import BundleError
from clipcap.weights import load_weights, write_weights

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
TIED = "lm_head.weight"  # the same tensor as transformer.wte.weight, so it is not stored

logging.getLogger("transformers.modeling_utils").setLevel(logging.ERROR)


class Decoder:
    """A language model with width E and vocabulary V, and the tokenizer that goes with it."""

    def __init__(self, model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model = model
        self.tokenizer = tokenizer

    @property
    def dim(self) -> int:
        """E."""
        return int(self.model.config.n_embd)

    @property
    def positions(self) -> int:
        """How many vectors it can read: the prefix and all tokens but the last."""
        return int(self.model.config.n_positions)

    @property
    def end_of_text_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    def to(self, device: torch.device) -> None:
        torch.nn.Module.to(self.model, device)  # the model's own `to` is not typed

    def encode(self, text: str) -> list[int]:
        """Token ids of a caption, without end-of-text."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def text(self, token_ids: list[int]) -> str:
        return text_of(self.tokenizer, token_ids)

    def save(self, folder: Path, dtype: torch.dtype) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        weights = self.model.state_dict()
        del weights[TIED]
        write_weights(
            {key: tensor.to(dtype).contiguous() for key, tensor in weights.items()},
            folder / WEIGHTS_FILE,
            metadata={"format": "pt"},
        )
        self.model.config.to_json_file(folder / CONFIG_FILE)
        self.tokenizer.save_pretrained(folder)
        _forget_where_it_came_from(folder / TOKENIZER_CONFIG_FILE)


def text_of(tokenizer: PreTrainedTokenizerBase, token_ids: list[int]) -> str:
    return str(tokenizer.decode(token_ids, skip_special_tokens=True)).strip()


def new_decoder(tokenizer: PreTrainedTokenizerBase, **sizes: Any) -> Decoder:
    """A decoder with fresh weights. Sizes are GPT2Config's: n_layer, n_embd, n_head, …"""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **sizes,
    )
    return Decoder(GPT2LMHeadModel(config), tokenizer)


def load_named(name: str) -> Decoder:
    """Load `"gpt2"` and the like from the hub or its cache.

    Raises: BundleError.
    """
    try:
        loaded: Any = GPT2LMHeadModel.from_pretrained(
            name, use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # transformers and huggingface_hub each raise their own
        raise BundleError(f"decoder {name!r} cannot be loaded: {error}") from error
    model, loading = loaded
    # transformers leaves random what it did not find, with only a log line.
    for key in sorted(set(loading["missing_keys"]) - {TIED}):
        raise BundleError(f"decoder {name!r} is no GPT-2: the weight {key!r} is missing")
    model.train(False)
    return Decoder(model, load_tokenizer(name))


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load the tokenizer of `"gpt2"` and the like, or of a folder.

    Raises: BundleError.
    """
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            name, trust_remote_code=False
        )
    except Exception as error:  # transformers and huggingface_hub each raise their own
        raise BundleError(
            f"tokenizer {name!r} cannot be loaded; without a network it must be a folder: {error}"
        ) from error
    return tokenizer


def load_folder(folder: Path) -> Decoder:
    """Load a decoder folder, checking every key and shape.

    Raises: BundleError.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE):
        if not (folder / name).is_file():
            raise BundleError(f"{folder / name}: no such file")
    # A foreign file makes transformers raise in as many ways as there are.
    try:
        model = GPT2LMHeadModel(GPT2Config.from_json_file(folder / CONFIG_FILE))
    except Exception as error:
        raise BundleError(f"{folder / CONFIG_FILE}: not a usable GPT-2: {error!r}") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        raise BundleError(
            f"{folder / TOKENIZER_FILE}: not a usable tokenizer: {error!r}"
        ) from error
    if len(tokenizer) > model.config.vocab_size:
        raise BundleError(
            f"{folder / TOKENIZER_FILE}: {len(tokenizer)} tokens, "
            f"but the model has {model.config.vocab_size}"
        )
    load_weights(model, folder / WEIGHTS_FILE, tied={TIED: "transformer.wte.weight"})
    model.train(False)
    return Decoder(model, tokenizer)


def _forget_where_it_came_from(tokenizer_config: Path) -> None:
    """transformers notes how a tokenizer was loaded; a bundle is the same wherever it was."""
    config = json.loads(tokenizer_config.read_text())
    for key in ("is_local", "local_files_only", "name_or_path"):
        config.pop(key, None)
    tokenizer_config.write_text(json.dumps(config, indent=2) + "\n")
