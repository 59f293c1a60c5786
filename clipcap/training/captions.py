"""Captions as a run reads them: cleaned, as token ids, padded into batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from clipcap.data import Example
from clipcap.decoder import Decoder
from clipcap.errors import TrainingError
from clipcap.training.config import TrainingConfig
from clipcap.training.text import clean

IGNORED = -100  # what cross_entropy leaves out
PADDED_TO = 4
"""Lengths are padded to a multiple of this: the fewer different shapes a CPU's matrix library
meets, the fewer kernels it builds and keeps."""


class PaddedTexts:
    """Captions as token ids, each ended by end-of-text and padded on demand."""

    def __init__(self, token_ids: Sequence[list[int]], end_of_text_id: int) -> None:
        self._ids = [torch.tensor([*ids, end_of_text_id]) for ids in token_ids]
        self.lengths = [len(ids) for ids in self._ids]

    def share(self, items: Tensor) -> float:
        """The tokens of a batch beside those of an average batch of as many captions. A mean
        over tokens times this weighs each token of the set alike, however batches are made."""
        found: int = sum(self.lengths[item] for item in items.tolist())
        return found / len(items) * len(self.lengths) / sum(self.lengths)

    def batch(self, items: Tensor) -> Tensor:
        """Targets `(B, T)`, padded with IGNORED."""
        targets = nn.utils.rnn.pad_sequence(
            [self._ids[item] for item in items.tolist()], batch_first=True, padding_value=IGNORED
        )
        return nn.functional.pad(targets, (0, -targets.shape[1] % PADDED_TO), value=IGNORED)


def tokenize(captions: Sequence[str], decoder: Decoder, config: TrainingConfig) -> PaddedTexts:
    longest = longest_caption(decoder, config)
    ids = [decoder.encode(caption)[:longest] for caption in captions]
    return PaddedTexts(ids, decoder.end_of_text_id)


def longest_caption(decoder: Decoder, config: TrainingConfig) -> int:
    """In tokens without end-of-text: with it and its padding, it fits after the prefix."""
    room = decoder.positions - config.prefix_length + 1  # the last token is not read
    longest = min(config.max_caption_tokens, room // PADDED_TO * PADDED_TO - 1)
    if longest < 1:
        raise TrainingError(
            f"prefix_length: a prefix of {config.prefix_length} leaves no room for a caption "
            f"in the decoder's {decoder.positions} positions"
        )
    return longest


def caption_pairs(
    examples: Sequence[Example], decoder: Decoder, config: TrainingConfig
) -> tuple[PaddedTexts, Tensor]:
    """Each caption of each image, and the index of its image `(N,)`."""
    pairs = [(i, clean_caption(c, config)) for i, e in enumerate(examples) for c in e.captions]
    texts = tokenize([caption for _, caption in pairs], decoder, config)
    return texts, torch.tensor([image for image, _ in pairs])


def clean_caption(caption: str, config: TrainingConfig) -> str:
    return clean(caption, lowercase=config.lowercase)
