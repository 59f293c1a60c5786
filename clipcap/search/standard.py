"""Standard beam search over a batch of prefixes.

Beams are pruned by the sum of their log-probabilities. One that takes a stop token while it is
among the best is set aside, and ranked by sum / length ** length_penalty. An image is done when
as many have been set aside as there are beams and no running one, were it to end now, would be
ranked among them. What still runs at `max_tokens` is cut, and comes after all that ended.

With `max_words` every beam is set aside at every step, as if it ended there, and goes on all
the same. Where half a sentence has been said the decoder finds an end very unlikely: such a
one counts as cut, too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clipcap.largest import largest
from clipcap.options import DecodingOptions
from clipcap.search.constraints import LIKELY, within_words, without_repeats
from clipcap.search.hypothesis import Hypothesis
from clipcap.search.model import Model, begin
from clipcap.search.vocabulary import Vocabulary


def standard_beam(
    model: Model, prefix: Tensor, vocabulary: Vocabulary, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """Up to `beam_size` candidates for each image, best first. Shapes: prefix `(B, K, E)`."""
    cached = begin(model, options.max_tokens, beams=True)
    state = _Search(len(prefix), vocabulary, options)
    state.advance(cached.read_prefix(prefix))
    while state.go_on():
        state.advance(cached.step(state.rows, state.last_tokens))
    return state.found


@dataclass(frozen=True)
class _Beams:
    """Sequences of one length, N for each of B images, best first; a sum of -inf marks what is
    none. `rows` are those of the forward pass that they go on from.

    Shapes: tokens `(B, N, T)`, sums and rows `(B, N)`.
    """

    tokens: Tensor
    sums: Tensor
    rows: Tensor

    @classmethod
    def empty(cls, images: int, device: torch.device) -> _Beams:
        """The empty sequence for each image."""
        return cls(
            tokens=torch.zeros(images, 1, 0, dtype=torch.long, device=device),
            sums=torch.zeros(images, 1, device=device),
            rows=torch.arange(images, device=device)[:, None],
        )

    def take(self, places: Tensor) -> _Beams:
        """Shapes: places `(B, M)`, each among an image's N."""
        histories = places[..., None].expand(-1, -1, self.tokens.shape[-1])
        return _Beams(
            self.tokens.gather(1, histories),
            self.sums.gather(1, places),
            self.rows.gather(1, places),
        )

    def first(self, count: int) -> _Beams:
        return _Beams(self.tokens[:, :count], self.sums[:, :count], self.rows[:, :count])

    def where(self, kept: Tensor) -> _Beams:
        """Shapes: kept `(B, N)`, of bool."""
        return replace(self, sums=self.sums.masked_fill(~kept, -torch.inf))

    def of_images(self, places: Tensor) -> _Beams:
        return _Beams(self.tokens[places], self.sums[places], self.rows[places])


class _Search:
    """The running beams, the image behind each of their rows, and what has been found."""

    def __init__(self, images: int, vocabulary: Vocabulary, options: DecodingOptions) -> None:
        self.found: list[list[Hypothesis]] = [[] for _ in range(images)]
        self._images = list(range(images))
        self._beams = _Beams.empty(images, vocabulary.stops.device)
        self._vocabulary = vocabulary
        self._options = options
        # So many that `beam_size` of them go on, even if each beam takes every stop token.
        self._considered = options.beam_size * (1 + int(vocabulary.stops.sum()))

    @property
    def rows(self) -> Tensor:
        return self._beams.rows.flatten()

    @property
    def last_tokens(self) -> Tensor:
        return self._beams.tokens[..., -1].flatten()

    def advance(self, log_probabilities: Tensor) -> None:
        """Replace the beams by their best continuations, and set aside those that end.

        Shapes: log_probabilities `(B·W, V)`.
        """
        allowed = self._allowed(log_probabilities)
        best = self._best(allowed)
        ends = self._vocabulary.stops[best.tokens[..., -1]]  # (B, N)
        if self._options.max_words is None:
            ended = best.where(ends).first(self._options.beam_size)
        else:
            ended = self._each_ended(allowed)
        self._set_aside(ended, self._whole(log_probabilities))
        going_on = ends.int().argsort(dim=1, stable=True)[:, : self._options.beam_size]
        self._beams = best.where(~ends).take(going_on)

    def go_on(self) -> bool:
        """Let go of the images that are done; whether there are others."""
        length = self._beams.tokens.shape[-1]
        if length == self._options.max_tokens:
            self._cut()
            return False
        scores = self._beams.sums[:, 0] / length**self._options.length_penalty
        going = [
            row
            for row, (image, score) in enumerate(zip(self._images, scores.tolist(), strict=True))
            if self._would_enter(self.found[image], score)
        ]
        if len(going) < len(self._images):
            self._images = [self._images[row] for row in going]
            self._beams = self._beams.of_images(torch.tensor(going, device=scores.device).long())
        return bool(going)

    def _allowed(self, log_probabilities: Tensor) -> Tensor:
        options = self._options
        histories = self._beams.tokens.flatten(0, 1)
        allowed = without_repeats(log_probabilities, histories, options.no_repeat_ngram)
        return within_words(allowed, histories, self._vocabulary, options.max_words)

    def _best(self, allowed: Tensor) -> _Beams:
        """The best continuations of each image's beams. Shapes: allowed `(B·W, V)`."""
        images, width = self._beams.sums.shape
        values, tokens = largest(allowed, self._considered)  # (B·W, M)
        totals = self._beams.sums[..., None] + values.view(images, width, -1)
        sums, places = totals.flatten(1).topk(min(self._considered, totals[0].numel()))  # (B, N)
        last = tokens.view(images, -1).gather(1, places)
        return self._go_on_with(places // values.shape[1], last, sums)

    def _each_ended(self, allowed: Tensor) -> _Beams:
        """Every beam with its likeliest stop token. Shapes: allowed `(B·W, V)`."""
        images, width = self._beams.sums.shape
        stops = self._vocabulary.stops.nonzero().squeeze(1)
        values, which = allowed[:, stops].max(dim=1)
        sums = self._beams.sums + values.view(images, width)
        beams = torch.arange(width, device=sums.device).expand(images, -1)
        return self._go_on_with(beams, stops[which].view(images, width), sums)

    def _whole(self, log_probabilities: Tensor) -> list[list[bool]]:
        """Of each image's beams, whether one that ends now has said a whole sentence; without a
        limit it ends where it will. Shapes: log_probabilities `(B·W, V)`."""
        images, width = self._beams.sums.shape
        if self._options.max_words is None:
            return [[True] * self._options.beam_size] * images
        likely = log_probabilities[:, self._vocabulary.stops].logsumexp(dim=1) >= LIKELY
        whole: list[list[bool]] = likely.view(images, width).tolist()
        return whole

    def _go_on_with(self, beams: Tensor, tokens: Tensor, sums: Tensor) -> _Beams:
        """Shapes: all `(B, N)`, beams among each image's W."""
        images, width, _ = self._beams.tokens.shape
        histories = self._beams.take(beams).tokens
        first_rows = torch.arange(images, device=beams.device)[:, None] * width
        longer = torch.cat([histories, tokens[..., None]], dim=-1)
        return _Beams(longer, sums, first_rows + beams)

    def _set_aside(self, ended: _Beams, whole: list[list[bool]]) -> None:
        width, penalty = self._options.beam_size, self._options.length_penalty
        there = ended.sums > -torch.inf
        places = there.nonzero().tolist()
        tokens, sums = ended.tokens[there].tolist(), ended.sums[there].tolist()
        for (row, beam), token_ids, total in zip(places, tokens, sums, strict=True):
            found = self.found[self._images[row]]
            found.append(Hypothesis(token_ids, total, ended=whole[row][beam]))
            found.sort(key=lambda one: (not one.ended, -one.score(penalty)))
            del found[width:]

    def _would_enter(self, found: list[Hypothesis], score: float) -> bool:
        if score == -torch.inf:  # no beam runs any more
            return False
        full = len(found) == self._options.beam_size and found[-1].ended
        return not full or score > found[-1].score(self._options.length_penalty)

    def _cut(self) -> None:
        rows = zip(
            self._images, self._beams.tokens.tolist(), self._beams.sums.tolist(), strict=True
        )
        for image, tokens, sums in rows:
            cut = [
                Hypothesis(token_ids, total, ended=False)
                for token_ids, total in zip(tokens, sums, strict=True)
                if total > -torch.inf
            ]
            self.found[image] = [*self.found[image], *cut][: self._options.beam_size]
