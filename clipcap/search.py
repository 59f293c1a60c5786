"""Search for captions: greedy and beam, over a batch of prefixes at once.

All beams of all images advance together, one forward pass of the decoder a step, on a
key/value cache that was filled from each prefix once. An image that has finished leaves the
batch. All prefixes have the same length, so nothing is padded and a caption does not depend
on what else is in its batch.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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
        self._cache.reorder_cache(rows)
        return self._forward(input_ids=tokens[:, None])

    def _forward(self, **inputs: Tensor) -> Tensor:
        output = self._model(
            **inputs, past_key_values=self._cache, use_cache=True, logits_to_keep=1
        )
        return torch.log_softmax(output.logits[:, -1].float(), dim=-1)


def search(
    model: GPT2LMHeadModel, prefix: Tensor, stop_id: int, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """The `num_captions` best captions for each prefix, best first.

    Shapes: prefix `(B, K, E)`.
    """
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


@dataclass
class _Finished:
    """The best finished captions of one image so far, at most `limit`."""

    limit: int
    kept: list[Hypothesis] = field(default_factory=list)

    def add(self, hypothesis: Hypothesis) -> None:
        self.kept.append(hypothesis)
        self.kept.sort(key=lambda h: -h.mean_log_probability)
        del self.kept[self.limit :]

    def cannot_improve(self, best_running: float, length: int) -> bool:
        """Whether no running beam, were it to end now, would enter the list."""
        full = len(self.kept) == self.limit
        return full and self.kept[-1].mean_log_probability >= best_running / length


def _beam(
    model: GPT2LMHeadModel, prefix: Tensor, stop_id: int, options: DecodingOptions
) -> list[list[Hypothesis]]:
    """Beam search. Beams are pruned by the sum of their log-probabilities; one that takes the
    stop token is set aside with its mean, and those are what is returned. An image is done
    when its best running beam could no longer enter its list, or at `max_tokens`, where
    running beams count as finished."""
    width = options.beam_size
    device = prefix.device
    cached = CachedModel(model)
    log_probabilities = cached.read_prefix(prefix)  # (B, V)
    finished = [_Finished(width) for _ in prefix]
    images = list(range(len(prefix)))  # the image of each group of beams that still runs
    sums = torch.zeros(len(prefix), 1, device=device)  # (groups, beams so far)
    texts: list[list[list[int]]] = [[[]] for _ in prefix]  # tokens by group and beam

    for length in range(1, options.max_tokens + 1):
        groups, beams = sums.shape
        vocabulary = log_probabilities.shape[-1]
        totals = sums[:, :, None] + log_probabilities.view(groups, beams, vocabulary)
        # Twice the width: should half of them stop, enough remain to fill the beam.
        count = min(2 * width, beams * vocabulary)
        values, places = totals.view(groups, -1).topk(count)
        rows: list[int] = []
        tokens: list[int] = []
        next_sums: list[list[float]] = []
        next_texts: list[list[list[int]]] = []
        next_images: list[int] = []
        for group, (image, group_values, group_places) in enumerate(
            zip(images, values.tolist(), places.tolist(), strict=True)
        ):
            running: list[tuple[float, int, int]] = []
            for rank, (value, place) in enumerate(zip(group_values, group_places, strict=True)):
                beam, token = divmod(place, vocabulary)
                if token != stop_id:
                    running.append((value, beam, token))
                elif rank < width:
                    ids = [*texts[group][beam], token]
                    finished[image].add(Hypothesis(ids, value))
            del running[width:]
            last = length == options.max_tokens or not running
            if last:
                for value, beam, token in running:
                    finished[image].add(Hypothesis([*texts[group][beam], token], value))
            if last or finished[image].cannot_improve(running[0][0], length):
                continue
            # Fewer candidates than beams: repeat the last at -inf, so that groups stay even.
            padding = [(-torch.inf, *running[-1][1:])] * (width - len(running))
            running += padding
            rows += [group * beams + beam for _, beam, _ in running]
            tokens += [token for _, _, token in running]
            next_sums.append([value for value, _, _ in running])
            next_texts.append([[*texts[group][beam], token] for _, beam, token in running])
            next_images.append(image)
        if not next_images:
            break
        images, texts = next_images, next_texts
        sums = torch.tensor(next_sums, device=device)
        log_probabilities = cached.step(
            torch.tensor(rows, device=device), torch.tensor(tokens, device=device)
        )
    return [one.kept[: options.num_captions] for one in finished]
