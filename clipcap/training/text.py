"""Captions as text: what is trained on, and the byte-level BPE tokenizer of a new decoder."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
VOWELS = "aeiou"


def clean(caption: str, *, lowercase: bool) -> str:
    """One line, single spaces, no space before punctuation, no full stop at the end (the
    bundle's presentation puts it back)."""
    text = " ".join(caption.replace('"', " ").split())
    text = re.sub(r"\s+([,.;:!?'])", r"\1", text).rstrip(" .,;:")
    return text.lower() if lowercase else text


def unspelled(caption: str) -> str:
    """Its consonants and digits alone. Collections spell, space and punctuate the same caption in
    different ways ("blonde", "on stage", "can 't"); this stays the same."""
    return "".join(c for c in caption.lower() if c.isalnum() and c not in VOWELS)


def train_tokenizer(captions: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE: no caption is outside its vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]  # transformers' own gap
        tokenizer_object=tokenizer, eos_token=END_OF_TEXT, bos_token=END_OF_TEXT
    )
