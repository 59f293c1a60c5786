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
from dataclasses import dataclass
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
        share: float = 1.0,
    ) -> None:
        """Shapes: images `(I, V, D)`, those of the examples. `share` of what captions say is in an
        embedding, and more noise instead: a tower that has been tuned on the examples puts no other
        image as near to its captions as theirs."""
        self._encoder, self._unseen, self._examples = encoder, unseen, examples
        self._images, self._share = images, share

    def draw(self, items: Tensor) -> Tensor:
        """Shapes: items `(B,)`, of the unseen → `(B, D)`.

        Raises: BundleError, TrainingError where the encoder has no text side.
        """
        examples = torch.randint(len(self._examples), items.shape)
        return self._guesses.of_unseen[items] + self._left_over(examples)

    def redraw(self, items: Tensor) -> Tensor:
        """An embedding that an example might have, had the tower not been tuned on it; with a share
        of 1, one of its views. Shapes: items `(B,)`, of the examples → `(B, D)`."""
        return self._guesses.of_examples[items] + self._left_over(items)

    def _left_over(self, examples: Tensor) -> Tensor:
        """What a view of each has beside what its captions say: `(B, D)`."""
        views = torch.randint(self._images.shape[1], examples.shape)
        return self._guesses.left_over[examples, views]

    @cached_property
    def _guesses(self) -> _Guesses:
        """Not before it is asked for: a run that goes on after all that needs it asks no more."""
        of_examples = embed_together(self._encoder, [e.captions for e in self._examples])
        of_unseen = embed_together(self._encoder, self._unseen)
        middle_text, middle_image = of_examples.mean(dim=0), self._images.mean(dim=(0, 1))
        to_images = fit(of_examples - middle_text, self._images.mean(dim=1) - middle_image)
        of_examples = (of_examples - middle_text) @ to_images
        of_unseen = (of_unseen - middle_text) @ to_images
        left_over = self._images - middle_image - of_examples[:, None]
        # As much noise as leaves embeddings as far from their middle as they are.
        whole = (self._images - middle_image).square().mean()
        said, noise = of_examples.square().mean(), left_over.square().mean()
        spread = ((whole - self._share**2 * said).clamp_min(0) / noise).sqrt()
        if self._share == 1:
            spread = torch.ones(())  # texts and noise need not be quite at right angles
        return _Guesses(
            of_examples=middle_image + self._share * of_examples,
            of_unseen=middle_image + self._share * of_unseen,
            left_over=spread * left_over,
        )


@dataclass(frozen=True)
class _Guesses:
    """Where captions say that images are, `(I, D)` and `(N, D)`, and what that leaves over of the
    views of the examples, `(I, V, D)`."""

    of_examples: Tensor
    of_unseen: Tensor
    left_over: Tensor


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
