"""Embeddings that an image might have of which only a caption is known: what a mapper can learn
from before it learns from images, of which there are fewer.

CLIP puts texts near their image, but not where images are. How to get from the one to the other is
fitted to the training images and their captions, by a linear map; what that leaves over for one of
them, drawn at random, is added. A refinement of the noise of Nukrai, Mokady, Globerson,
"Text-Only Training for Image Captioning using Noise-Injected CLIP" (CapDec), arXiv 2211.00575.

Axes: N images of which only captions are known, I images, V views, D CLIP width.
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
    """Of images that are not there: another of each at each draw."""

    def __init__(
        self,
        encoder: Encoder,
        unseen: Sequence[Sequence[str]],
        examples: Sequence[Example],
        images: Tensor,
    ) -> None:
        """Shapes: images `(I, V, D)`, those of the examples."""
        self._encoder, self._unseen, self._examples = encoder, unseen, examples
        self._images = images

    def draw(self, items: Tensor) -> Tensor:
        """Shapes: items `(B,)`, of the unseen → `(B, D)`.

        Raises: BundleError, TrainingError where the encoder has no text side.
        """
        of_examples, of_unseen = self._guesses
        shown = torch.randint(len(of_examples), items.shape)
        views = torch.randint(self._images.shape[1], items.shape)
        left_over = self._images[shown, views] - of_examples[shown]
        return of_unseen[items] + left_over

    @cached_property
    def _guesses(self) -> tuple[Tensor, Tensor]:
        """Where captions say that the examples `(I, D)` and the unseen `(N, D)` are. Not before it
        is asked for: a run that goes on after this stage asks no more."""
        examples = embed_together(self._encoder, [e.captions for e in self._examples])
        middle_text, middle_image = examples.mean(dim=0), self._images.mean(dim=(0, 1))
        to_images = fit(examples - middle_text, self._images.mean(dim=1) - middle_image)
        unseen = embed_together(self._encoder, self._unseen)
        of_examples, of_unseen = (
            (texts - middle_text) @ to_images + middle_image for texts in (examples, unseen)
        )
        return of_examples, of_unseen


def embed_together(encoder: Encoder, texts: Sequence[Sequence[str]]) -> Tensor:
    """The mean embedding of the captions of each image, scaled to unit length: `(N, D)`."""
    each = embed_captions(encoder, [caption for captions in texts for caption in captions])
    owners = torch.tensor([i for i, captions in enumerate(texts) for _ in captions])
    summed = torch.zeros(len(texts), each.shape[1]).index_add(0, owners, each)
    return torch.nn.functional.normalize(summed, dim=-1)


def fit(given: Tensor, wanted: Tensor) -> Tensor:
    """Ridge regression. Shapes: given, wanted `(I, D)`, of mean 0 → `(D, D)`, to multiply with
    from the right."""
    squares = given.T @ given
    ridge = RIDGE * squares.diagonal().mean() * torch.eye(len(squares))
    found: Tensor = torch.linalg.solve(squares + ridge, given.T @ wanted)
    return found
