"""The authors' beam search, against a plain loop written from its description."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

from clipcap import DecodingOptions
from clipcap.gpt2 import GPT2
from clipcap.search import search
from tests.clipcap.decoders import (
    STOP,
    log_probabilities_after,
    random_decoder,
    random_prefix,
    vocabulary,
)

NETS = 240


def plain_reference(
    model: GPT2LMHeadModel, prefix: Tensor, width: int, max_tokens: int
) -> list[list[int]]:
    """No cache, one image. Stopped beams keep their score and add 0 for token 0; candidates are
    ranked by mean while pruning; all are sorted by mean at the end."""
    first = log_probabilities_after(model, prefix, [])
    sums, order = first.topk(width)
    beams = [[token] for token in order.tolist()]
    lengths = torch.ones(width)
    stopped = torch.tensor([ids[-1] == STOP for ids in beams])
    for _ in range(max_tokens - 1):
        if stopped.all():
            break
        rows = torch.stack([log_probabilities_after(model, prefix, ids) for ids in beams])
        rows[stopped] = -torch.inf
        rows[stopped, 0] = 0
        lengths[~stopped] += 1
        totals = sums[:, None] + rows
        means, chosen = (totals / lengths[:, None]).view(-1).topk(width)
        parents, tokens = chosen // rows.shape[1], chosen % rows.shape[1]
        pairs = zip(parents.tolist(), tokens.tolist(), strict=True)
        beams = [[*beams[parent], token] for parent, token in pairs]
        lengths = lengths[parents]
        sums = means * lengths
        stopped = stopped[parents] | (tokens == STOP)
    ranked = (sums / lengths).argsort(descending=True).tolist()
    return [beams[i][: int(lengths[i])] for i in ranked]


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(8))
def test_it_equals_the_authors_token_for_token(chunk: int) -> None:
    for seed in range(chunk, NETS, 8):
        model, prefixes = random_decoder(seed), random_prefix(seed, batch=2)
        width, longest = 1 + seed % 5, 6 + seed % 7
        options = DecodingOptions(
            beam_rule="reference", beam_size=width, num_captions=width, max_tokens=longest
        )
        for prefix, found in zip(
            prefixes, search(GPT2(model), prefixes, vocabulary(), options), strict=True
        ):
            ids = [hypothesis.token_ids for hypothesis in found]
            assert ids == plain_reference(model, prefix, width, longest), seed


def test_it_is_not_the_standard_rule() -> None:
    """Or the parity above would say nothing."""
    differ = 0
    for seed in range(40):
        model, prefix = random_decoder(seed), random_prefix(seed)
        best = {}
        for rule in ("reference", "standard"):
            options = DecodingOptions(beam_rule=rule, beam_size=3, max_tokens=10, no_repeat_ngram=0)
            best[rule] = search(GPT2(model), prefix, vocabulary(), options)[0][0].token_ids
        differ += best["reference"] != best["standard"]
    assert differ > 5
