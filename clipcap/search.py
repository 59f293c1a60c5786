"""Search for captions: greedy and beam, over a batch of prefixes at once.

All beams of all images advance together, one forward pass of the decoder a step, on a
key/value cache that was filled from each prefix once. An image that has finished leaves the
batch. All prefixes have the same length, so nothing is padded and a caption does not depend
on what else is in its batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from transformers import DynamicCache, GPT2LMHeadModel

from clipcap.options import DecodingOptions


@dataclass(frozen=True)
class Hypothesis:
    """A finished sequence of tokens, the stop token included if it was reached."""

    token_ids: list[int]
    log_probability: float

    @property
    def mean_log_probability(self) -> float:
        """Nats per token."""
        return self.log_probability / len(self.token_ids)


class CachedModel:
    """A GPT-2 that reads a prefix once and then one token a step for each row."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        self._model = model
        self._cache = DynamicCache(config=model.config)

    def read_prefix(self, prefix: Tensor) -> Tensor:
        """Shapes: prefix `(B, K, E)` → log-probabilities of the first token `(B, V)`."""
        return self._forward(inputs_embeds=prefix)

    def step(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """Go on from `rows` of the last step with one token each.

        Shapes: rows, tokens `(N,)` → log-probabilities of the next token `(N, V)`.
        """
        self._cache.reorder_cache(rows)  # type: ignore[arg-type]  # any integer tensor will do
        return self._forward(input_ids=tokens[:, None])

    def _forward(self, **inputs: Tensor) -> Tensor:
        output = self._model(
            **inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=1
        )
        return torch.log_softmax(output.logits[:, -1].float(), dim=-1)


def search(
    model: GPT2LMHeadModel, prefix: Tensor, stop_id: int, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """The `num_captions` best captions for each prefix, best first. They are no longer than the
    decoder has positions for.

    Shapes: prefix `(B, K, E)`.
    """
    room = model.config.n_positions - prefix.shape[1] + 1  # the last token is not read again
    options = replace(options, max_tokens=min(options.max_tokens, room))
    with torch.inference_mode():
        if options.method == "greedy":
            return [[found] for found in _greedy(model, prefix, stop_id, options.max_tokens)]
        return _beam(model, prefix, stop_id, options)


def _greedy(
    model: GPT2LMHeadModel, prefix: Tensor, stop_id: int, max_tokens: int
) -> list[Hypothesis]:
    cached = CachedModel(model)
    log_probabilities = cached.read_prefix(prefix)
    images = list(range(len(prefix)))  # the image behind each row that still runs
    tokens: list[list[int]] = [[] for _ in images]
    sums = [0.0 for _ in images]
    for _ in range(max_tokens):
        best, chosen = log_probabilities.max(dim=-1)
        running = []
        for row, (image, token, value) in enumerate(
            zip(images, chosen.tolist(), best.tolist(), strict=True)
        ):
            tokens[image].append(token)
            sums[image] += value
            if token != stop_id:
                running.append(row)
        if not running or len(tokens[images[running[0]]]) == max_tokens:
            break
        rows = torch.tensor(running, device=prefix.device)
        images = [images[row] for row in running]
        log_probabilities = cached.step(rows, chosen[rows])
    return [Hypothesis(ids, total) for ids, total in zip(tokens, sums, strict=True)]


@dataclass(frozen=True)
class _Beam:
    """One running sequence: its tokens, the sum of their log-probabilities, and the row of the
    last forward pass that it goes on from."""

    token_ids: list[int]
    log_probability: float
    row: int = 0


@dataclass
class _ImageSearch:
    """The beams of one image, and what has finished so far, best first."""

    width: int
    stop_id: int
    beams: list[_Beam] = field(default_factory=lambda: [_Beam([], 0.0)])
    finished: list[Hypothesis] = field(default_factory=list)

    def advance(self, candidates: list[tuple[float, int, int]], first_row: int) -> None:
        """Replace the beams by their best continuations.

        `candidates` are (sum of log-probabilities, beam, token), best first; `first_row` is the
        row of this image's first beam in the forward pass that proposed them.
        """
        running: list[_Beam] = []
        for rank, (value, beam, token) in enumerate(candidates):
            token_ids = [*self.beams[beam].token_ids, token]
            if token != self.stop_id:
                running.append(_Beam(token_ids, value, first_row + beam))
            elif rank < self.width:
                self._finish(token_ids, value)
        self.beams = running[: self.width]

    def end(self) -> None:
        """Count what still runs as finished: the search has reached its length."""
        for beam in self.beams:
            self._finish(beam.token_ids, beam.log_probability)
        self.beams = []

    @property
    def done(self) -> bool:
        """Whether no running beam, were it to end now, would enter the list."""
        if not self.beams:
            return True
        best = Hypothesis(self.beams[0].token_ids, self.beams[0].log_probability)
        full = len(self.finished) == self.width
        return full and self.finished[-1].mean_log_probability >= best.mean_log_probability

    def _finish(self, token_ids: list[int], value: float) -> None:
        self.finished.append(Hypothesis(token_ids, value))
        self.finished.sort(key=lambda hypothesis: -hypothesis.mean_log_probability)
        del self.finished[self.width :]


def _beam(
    model: GPT2LMHeadModel, prefix: Tensor, stop_id: int, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """Beams are pruned by the sum of their log-probabilities. One that takes the stop token is
    set aside, ranked by its mean. An image is done when its list is full and its best running
    beam, were it to end now, would not enter it, or at `max_tokens`, where running beams count
    as finished."""
    cached = CachedModel(model)
    log_probabilities = cached.read_prefix(prefix)  # (rows, V): one row for each running beam
    searches = [_ImageSearch(options.beam_size, stop_id) for _ in prefix]
    running = searches
    for length in range(1, options.max_tokens + 1):
        _advance_all(running, log_probabilities, options.beam_size)
        if length == options.max_tokens:
            for one in running:
                one.end()
        running = [one for one in running if not one.done]
        if not running:
            break
        beams = [beam for one in running for beam in one.beams]
        log_probabilities = cached.step(
            torch.tensor([beam.row for beam in beams], device=prefix.device),
            torch.tensor([beam.token_ids[-1] for beam in beams], device=prefix.device),
        )
    return [one.finished[: options.num_captions] for one in searches]


def _advance_all(searches: list[_ImageSearch], log_probabilities: Tensor, width: int) -> None:
    """Rank the continuations of all beams on the device, in one go, and hand each image its own.

    Shapes: log_probabilities `(rows, V)`, the rows of one image after the other.
    """
    counts = [len(one.beams) for one in searches]
    vocabulary = log_probabilities.shape[-1]
    sums = torch.tensor(
        [beam.log_probability for one in searches for beam in one.beams],
        device=log_probabilities.device,
    )
    totals = sums[:, None] + log_probabilities
    # Twice the width of each beam: should half of an image's best stop, enough remain.
    values, tokens = totals.topk(min(2 * width, vocabulary), dim=-1)
    rows = zip(values.tolist(), tokens.tolist(), strict=True)
    first_row = 0
    for one, count in zip(searches, counts, strict=True):
        candidates = [
            (value, beam, token)
            for beam, (row_values, row_tokens) in zip(range(count), rows, strict=False)
            for value, token in zip(row_values, row_tokens, strict=True)
        ]
        candidates.sort(key=lambda candidate: -candidate[0])
        one.advance(candidates[: 2 * width], first_row)
        first_row += count
