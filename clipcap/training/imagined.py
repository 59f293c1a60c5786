"""Embeddings that an image might have of which only a caption is known: what a mapper can learn
from before it learns from images, of which there are fewer.

CLIP puts a text near its images, but not among them. How to get from the one to the other is
fitted to the captions of the training images, by a linear map; what that leaves over for one of
them, drawn at random, is added. A refinement of the noise of Nukrai, Mokady, Globerson,
"Text-Only Training for Image Captioning using Noise-Injected CLIP" (CapDec), arXiv 2211.00575.

Axes: N texts, M captions of images, I images, V views, D CLIP width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from clipcap.data import Example
from clipcap.encoder import Encoder
from clipcap.training.text_only import embed_captions

RIDGE = 1e-3
"""Of the mean square of a direction, so that directions texts do not use stay unused."""


class ImaginedEmbeddings:
    """One for each of the texts, another at each draw."""

    def __init__(
        self, encoder: Encoder, texts: Sequence[str], examples: Sequence[Example], images: Tensor
    ) -> None:
        """Shapes: images `(I, V, D)`, those of the examples."""
        self._encoder, self._texts, self._examples = encoder, texts, examples
        self._images = images
        self._owners = torch.tensor([i for i, e in enumerate(examples) for _ in e.captions])

    def draw(self, items: Tensor) -> Tensor:
        """Shapes: items `(B,)`, of the texts → `(B, D)`.

        Raises: BundleError, TrainingError where the encoder has no text side.
        """
        of_captions, of_texts = self._guesses
        captions = torch.randint(len(self._owners), items.shape)
        views = torch.randint(self._images.shape[1], items.shape)
        left_over = self._images[self._owners[captions], views] - of_captions[captions]
        return of_texts[items] + left_over

    @cached_property
    def _guesses(self) -> tuple[Tensor, Tensor]:
        """Where the images of the captions `(M, D)` and of the texts `(N, D)` should be. Not
        before it is asked for: a run that goes on after this stage asks no more."""
        captions = embed_captions(self._encoder, [c for e in self._examples for c in e.captions])
        middle_text, middle_image = captions.mean(dim=0), self._images.mean(dim=(0, 1))
        wanted = self._images.mean(dim=1)[self._owners] - middle_image  # (M, D)
        to_images = fit(captions - middle_text, wanted)
        texts = embed_captions(self._encoder, self._texts)
        of_captions, of_texts = (
            (embeddings - middle_text) @ to_images + middle_image
            for embeddings in (captions, texts)
        )
        return of_captions, of_texts


def fit(given: Tensor, wanted: Tensor) -> Tensor:
    """Ridge regression. Shapes: given, wanted `(M, D)`, of mean 0 → `(D, D)`, to multiply with
    from the right."""
    squares = given.T @ given
    ridge = RIDGE * squares.diagonal().mean() * torch.eye(len(squares))
    found: Tensor = torch.linalg.solve(squares + ridge, given.T @ wanted)
    return found
