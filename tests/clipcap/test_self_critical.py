"""Self-critical training: what is drawn, and what the reward does to it."""

from __future__ import annotations

import math
import tracemalloc
from collections import Counter

import torch
from torch import Tensor, nn

from clipcap.mappers import MLPConfig, build_mapper
from clipcap.training.captions import IGNORED
from clipcap.training.model import PrefixLanguageModel
from clipcap.training.self_critical import CiderReward, sample, self_critical_loss
from tests.clipcap.decoders import STOP, WIDTH, log_probabilities_after, random_decoder

MAX_TOKENS = 6


def random_model(seed: int) -> PrefixLanguageModel:
    torch.manual_seed(seed)
    config = MLPConfig(embedding_dim=4, prefix_length=2, decoder_dim=WIDTH)
    decoder = random_decoder(seed)
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.div_(3)  # so that much is drawn, not the same caption again and again
    return PrefixLanguageModel(build_mapper(config), decoder).eval()


def draw(module: PrefixLanguageModel, embedding: Tensor, samples: int) -> list[list[int]]:
    """Captions, each without its padding."""
    targets = sample(module, embedding, samples=samples, stop_id=STOP, max_tokens=MAX_TOKENS)
    assert targets.shape[0] == len(embedding) * samples
    return [[token for token in row if token != IGNORED] for row in targets.tolist()]


def test_a_reward_keeps_no_reference_weighed() -> None:
    """COCO has 600,000 of them, and each as n-grams takes more than eight kilobytes."""
    grass = [f"a dog runs over the {colour} grass" for colour in "abcde"]
    references = [["a cat sits on a mat"], *[grass] * 2000]
    tracemalloc.start()
    reward = CiderReward(references)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 1_000_000
    assert reward.score(0, "a cat sits", ended=True) > 1


def test_each_caption_ends_with_the_stop_token_or_at_the_limit() -> None:
    captions = draw(random_model(0), torch.randn(3, 4), samples=200)
    assert {len(caption) for caption in captions} >= {1, 2, MAX_TOKENS}
    for caption in captions:
        assert STOP not in caption[:-1]
        assert caption[-1] == STOP or len(caption) == MAX_TOKENS


def test_tokens_are_drawn_as_likely_as_the_model_says_whatever_has_ended_beside_them() -> None:
    module, embedding = random_model(1), torch.randn(2, 4)
    captions = draw(module, embedding, samples=3000)
    checked = 0
    for image in range(2):
        own = captions[image * 3000 : (image + 1) * 3000]
        for history in {tuple(caption[:n]) for caption in own for n in range(3)}:
            n = len(history)
            nexts = Counter(c[n] for c in own if tuple(c[:n]) == history and len(c) > n)
            total = nexts.total()
            if total < 100:
                continue
            checked += 1
            prefix = module.mapper(embedding[image : image + 1])[0].detach()
            wanted = log_probabilities_after(module.decoder, prefix, list(history)).exp().tolist()
            for token, probability in enumerate(wanted):
                spread = math.sqrt(total * probability * (1 - probability)) + 1
                assert abs(nexts[token] - total * probability) < 5 * spread
    assert checked > 4


def test_what_is_rewarded_becomes_likely() -> None:
    module, embedding, wanted = random_model(2), torch.randn(2, 4), 5
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)

    def share() -> float:
        captions = draw(module, embedding, samples=200)
        return sum(wanted in caption for caption in captions) / len(captions)

    before = share()
    for _ in range(40):
        targets = sample(module, embedding, samples=20, stop_id=STOP, max_tokens=MAX_TOKENS)
        rewards = (targets == wanted).any(dim=1).float().view(2, 20)
        loss = self_critical_loss(module, embedding, targets.clone(), rewards)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
    assert share() > before + 0.2
