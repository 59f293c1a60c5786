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
from clipcap.training.embeddings import any_view
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
        of_unseen, left_over = self._guesses
        other = torch.randint(len(left_over), items.shape)
        return of_unseen[items] + any_view(left_over, other)

    @cached_property
    def _guesses(self) -> tuple[Tensor, Tensor]:
        """Where captions say that the unseen are `(N, D)`, and what the examples have beside that
        `(I, V, D)`. Not before it is asked for: a run that goes on later asks no more."""
        examples = [e.captions for e in self._examples]
        told = TextToImage(embed_together(self._encoder, examples), self._images)
        return told.place(embed_together(self._encoder, self._unseen)), told.left_over


class TextToImage:
    """Where an image is, by what is said of it: a linear map from texts to images, fitted to
    images and their captions."""

    def __init__(self, texts: Tensor, images: Tensor) -> None:
        """Shapes: texts `(I, D)`, images `(I, V, D)`."""
        self._middle_text, self._middle_image = texts.mean(dim=0), images.mean(dim=(0, 1))
        self._map = fit(texts - self._middle_text, images.mean(dim=1) - self._middle_image)
        self.left_over = images - self.place(texts)[:, None]
        """What each view has beside that: `(I, V, D)`."""

    def place(self, texts: Tensor) -> Tensor:
        """Shapes: texts `(N, D)` → `(N, D)`."""
        found: Tensor = (texts - self._middle_text) @ self._map + self._middle_image
        return found


class BlurredEmbeddings:
    """Embeddings of training images, made as vague as those of images that nobody trained on.

    A tower that was tuned on images puts them nearer to where their captions say than any that it
    has not seen: what learns to caption from that trusts an embedding too much. So each is moved
    by a share of what captions do not say of another image.
    """

    def __init__(
        self, encoder: Encoder, examples: Sequence[Example], images: Tensor, share: float
    ) -> None:
        """Shapes: images `(I, V, D)`, those of the examples."""
        texts = embed_together(encoder, [example.captions for example in examples])
        self._images, self._share = images, share
        self._left_over = TextToImage(texts, images).left_over

    def draw(self, items: Tensor) -> Tensor:
        """Another of each at each draw, of its own length. Shapes: items `(B,)` → `(B, D)`."""
        seen = any_view(self._images, items)
        other = torch.randint(len(self._images), items.shape)
        blurred = seen + self._share * any_view(self._left_over, other)
        length: Tensor = seen.norm(dim=-1, keepdim=True)
        return torch.nn.functional.normalize(blurred, dim=-1) * length


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
