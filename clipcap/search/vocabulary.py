"""What a search has to know of tokens: which end a caption, and which begin a word."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from clipcap.search.hypothesis import Hypothesis

SPACE = "Ġ"
"""How a byte-level tokenizer writes a space."""
WHITESPACE = tuple("ĠĉĊċČč")
"""Likewise, with tab and the line breaks."""


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that end a caption, and those that begin a word wherever they stand (the
    first token of a caption always does).

    Shapes: stops, begins_word `(V,)`, of bool.
    """

    stop_id: int
    stops: Tensor
    begins_word: Tensor

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, stop_token: str, size: int) -> Vocabulary:
        """A caption ends at the stop token, with or without a space before it (the authors' is
        `.`, and ` .` is a token of its own), and at end-of-text. `size` is V, which may be
        more than the tokenizer has.
        """
        ids = tokenizer.get_vocab()
        ends = {stop_token, SPACE + stop_token, tokenizer.eos_token}
        stops = torch.zeros(size, dtype=torch.bool)
        begins_word = torch.zeros(size, dtype=torch.bool)
        for token, index in ids.items():
            stops[index] = token in ends
            begins_word[index] = token not in ends and token.startswith(WHITESPACE)
        return cls(ids[stop_token], stops, begins_word)

    def to(self, device: torch.device) -> Vocabulary:
        return Vocabulary(self.stop_id, self.stops.to(device), self.begins_word.to(device))

    def words(self, tokens: Tensor) -> Tensor:
        """How many words begin. Shapes: tokens `(N, T)` → `(N,)`, T at least 1."""
        return 1 + self.begins_word[tokens[:, 1:]].sum(dim=1)

    def within(self, found: Hypothesis, max_words: int) -> bool:
        """Whether it came to its end in so many words."""
        tokens = torch.tensor([found.token_ids], device=self.begins_word.device)
        return found.ended and bool(self.words(tokens) <= max_words)
