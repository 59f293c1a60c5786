"""The stage that learns what CIDEr a caption can be expected to have (clipcap/expected_cider.py),
from every caption there is: those of images, and those of images that are not there.

Which combinations of n-grams an embedding tells of is found first, by a linear regression: its
strongest directions are the basis. How far an image goes in each is then learned.

Axes: I images, D CLIP width, R rank, G n-grams.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from accelerate import PartialState
from torch import Tensor

from clipcap.errors import TrainingError
from clipcap.expected_cider import UNIT, ExpectedCider, ExpectedCiderConfig, Weighing
from clipcap.ngrams import LENGTHS, NGram, ngrams, words
from clipcap.training.config import TrainingConfig
from clipcap.training.stage import Stage

NGRAMS = 20_000
"""Those that captions lie most in the direction of are listed."""
HIDDEN = 1024
RANK = 192
DROPOUT = 0.2
SEEN_COUNT = 3
"""So many times as much as images of which only captions are known."""
RIDGE = 0.02
"""Of the mean square of a direction."""
WORD_WEIGHT = 0.01
"""Of an error of one word in the length, beside that of the n-grams."""
BATCH = 256
BASIS_LENGTH = 64
"""Of each direction of the basis: its numbers are near 1 then."""
AT_ONCE = 4096
"""Images that the regression reads at a time."""

See = Callable[[Tensor], Tensor]
"""Draws an embedding of each image: items `(B,)` → `(B, D)`."""


class People:
    """What people say of images: the mean weights of their captions' n-grams, and words."""

    def __init__(self, captions: Sequence[Sequence[str]]) -> None:
        """Raises: TrainingError where they say nothing."""
        images = Counter(ngram for of_one in captions for ngram in _said(of_one))
        most = math.log(1 + len(captions))
        rarity = {ngram: most - math.log(count) for ngram, count in images.items()}
        others = [most] * len(LENGTHS)
        weigh = Weighing(rarity, others)
        self.listed = _heaviest(mean_weights(captions, weigh))
        if not self.listed:
            raise TrainingError("expected_cider_epochs: there is no word in any caption")
        # Weighed twice: to keep what is not listed takes gigabytes.
        self.weights = as_matrix(mean_weights(captions, weigh), self.listed)
        """Sparse, `(I, G)`."""
        self.rarity = {ngram: rarity.pop(ngram) for ngram in self.listed}
        self.others = _means_by_length(rarity, others)  # of what is left
        self.words = mean_words(captions)


def expected_cider_stage(
    seen: Sequence[Sequence[str]],
    unseen: Sequence[Sequence[str]],
    see: See,
    dev: tuple[Sequence[Sequence[str]], Tensor],
    images: Tensor,
    config: TrainingConfig,
) -> tuple[Stage, ExpectedCider]:
    """Captions of the images to learn from, first of those that are there; `see` knows them in
    this order. Of dev captions and embeddings `(I, D)`.

    Shapes: images, to standardise embeddings by, `(I, V, D)`.
    Raises: TrainingError where there is nothing to learn.
    """
    torch.manual_seed(config.seed)  # a run that goes on finds the same basis
    people = People([*seen, *unseen])
    items = _items(seen, unseen)
    network = _network(people, items, see, images)
    wanted = _along(network, people.weights)
    captions, embeddings = dev
    weigh = Weighing(people.rarity, people.others)
    dev_wanted = _along(network, as_matrix(mean_weights(captions, weigh), people.listed))
    dev_words = mean_words(captions)
    device = PartialState().device
    network.to(device)

    def distance(embedding: Tensor, wanted: Tensor, count: Tensor) -> Tensor:
        direction, found = network(embedding.to(device))
        apart = ((direction - wanted.to(device)) * BASIS_LENGTH * UNIT).square().sum(dim=1).mean()
        total: Tensor = apart + WORD_WEIGHT * (found - count.to(device)).abs().mean()
        return total

    def loss(batch: Tensor) -> Tensor:
        image = items[batch]
        return distance(see(image), wanted[image], people.words[image])

    @torch.inference_mode()
    def evaluate() -> dict[str, float]:
        return {"dev_loss": float(distance(embeddings, dev_wanted, dev_words))}

    stage = Stage(
        name="expected_cider",
        module=network,
        lengths=[1] * len(items),
        loss=loss,
        evaluate=evaluate,
        judge=lambda measured: -measured["dev_loss"],
        epochs=config.expected_cider_epochs,
        batch_size=BATCH,
        learning_rate=config.expected_cider_learning_rate,
    )
    return stage, network


def mean_weights(
    captions: Sequence[Sequence[str]], weigh: Weighing
) -> Iterator[Mapping[NGram, float]]:
    """Of all captions of each image in turn."""
    for of_one in captions:
        mean: defaultdict[NGram, float] = defaultdict(float)
        for caption in of_one:
            for ngram, weight in weigh(caption).items():
                mean[ngram] += weight / len(of_one)
        yield mean


def as_matrix(means: Iterable[Mapping[NGram, float]], listed: Sequence[NGram]) -> Tensor:
    """Sparse, `(I, G)`."""
    place = {ngram: i for i, ngram in enumerate(listed)}
    rows = [[(place[n], weight) for n, weight in mean.items() if n in place] for mean in means]
    starts = torch.tensor([0, *(len(row) for row in rows)]).cumsum(dim=0)
    places = torch.tensor([column for row in rows for column, _ in row], dtype=torch.long)
    weights = torch.tensor([weight for row in rows for _, weight in row])
    size = (len(rows), len(listed))
    owners = torch.arange(len(rows)).repeat_interleave(starts.diff())
    return torch.sparse_coo_tensor(
        torch.stack([owners, places]), weights, size, check_invariants=True
    ).coalesce()


def mean_words(captions: Sequence[Sequence[str]]) -> Tensor:
    """`(I,)`."""
    return torch.tensor([sum(len(words(one)) for one in of) / len(of) for of in captions])


def _said(captions: Sequence[str]) -> set[NGram]:
    return {ngram for caption in captions for found in ngrams(caption) for ngram in found}


def _heaviest(means: Iterable[Mapping[NGram, float]]) -> list[NGram]:
    """In a fixed order."""
    squares: defaultdict[NGram, float] = defaultdict(float)
    for mean in means:
        for ngram, weight in mean.items():
            squares[ngram] += weight**2
    return sorted(heapq.nlargest(NGRAMS, squares, key=lambda ngram: (squares[ngram], ngram)))


def _means_by_length(rarity: Mapping[NGram, float], default: Sequence[float]) -> list[float]:
    found: list[list[float]] = [[] for _ in LENGTHS]
    for ngram, nats in rarity.items():
        found[len(ngram) - 1].append(nats)
    return [
        math.fsum(nats) / len(nats) if nats else other
        for nats, other in zip(found, default, strict=True)
    ]


def _items(seen: Sequence[Sequence[str]], unseen: Sequence[Sequence[str]]) -> Tensor:
    """The image of each caption, to be learned from once an epoch."""
    of_seen = torch.arange(len(seen)).repeat_interleave(torch.tensor([len(c) for c in seen]))
    counts = torch.tensor([len(captions) for captions in unseen], dtype=torch.long)
    of_unseen = len(seen) + torch.arange(len(unseen)).repeat_interleave(counts)
    return torch.cat([of_seen.repeat(SEEN_COUNT), of_unseen])


def _network(people: People, items: Tensor, see: See, images: Tensor) -> ExpectedCider:
    """With a basis, and directions not yet learned."""
    flat = images.flatten(0, -2)
    mean, deviation = flat.mean(dim=0), flat.std(dim=0, correction=0)
    deviation = torch.where(deviation > deviation.mean() / 100, deviation, 1.0)
    share = items.bincount(minlength=len(people.words)) / len(items)
    usual = people.weights.T @ share
    basis = _basis(people.weights, share, lambda items: (see(items) - mean) / deviation)
    config = ExpectedCiderConfig(embedding_dim=flat.shape[1], hidden=HIDDEN, rank=len(basis))
    network = ExpectedCider(config, people.listed)
    network.dropout.p = DROPOUT
    network.mean.copy_(mean)
    network.deviation.copy_(deviation)
    network.usual.copy_(usual / UNIT)
    network.basis.copy_(basis * BASIS_LENGTH)
    network.rarity.copy_(torch.tensor([people.rarity[ngram] for ngram in people.listed]))
    network.others.copy_(torch.tensor(people.others))
    with torch.no_grad():
        network.direction.weight.mul_(0.1)
        network.words.bias.copy_(people.words @ share)
    return network


def _basis(weights: Tensor, share: Tensor, see: See) -> Tensor:
    """The directions, of length 1, in which a linear map from embeddings finds most: `(R, G)`.

    Shapes: weights, sparse, `(I, G)`, share of each image `(I,)`.
    Raises: TrainingError where there is nothing to tell from anything.
    """
    parts = [see(part) for part in torch.split(torch.arange(len(share)), AT_ONCE)]
    given = torch.cat(parts)
    given -= share @ given
    scaled = given * share[:, None]
    squares = given.T @ scaled
    squares += RIDGE * squares.diagonal().mean() * torch.eye(len(squares))
    product = (weights.T @ scaled).T  # whatever is usual: the mean of `given` is 0
    root, failed = torch.linalg.cholesky_ex(squares)
    if failed:
        raise TrainingError("expected_cider_epochs: all images have the same embedding")
    found = torch.linalg.solve_triangular(root, product, upper=False)
    values, vectors = torch.linalg.eigh(found @ found.T)
    told = values > values[-1] * 1e-6
    if not told.any():
        raise TrainingError("expected_cider_epochs: all images have the same captions")
    strongest = vectors[:, told].flip(dims=(1,))[:, :RANK]
    return torch.nn.functional.normalize(strongest.T @ found, dim=1)


def _along(network: ExpectedCider, weights: Tensor) -> Tensor:
    """How far to go in each direction of the basis to be nearest to the weights.

    Shapes: weights, sparse, `(I, G)` → `(I, R)`.
    """
    basis, usual = network.basis, network.usual
    in_units = weights @ basis.T / UNIT - usual @ basis.T
    return in_units / BASIS_LENGTH**2
