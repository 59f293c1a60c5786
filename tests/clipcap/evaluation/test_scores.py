"""Scores against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from clipcap.evaluation.scores import measure, normalise, score
from clipcap.training.self_critical import CiderReward

REFERENCES = [
    ["a dog runs on the beach", "a wet dog runs along the sea"],
    ["two men play football in a park", "men are playing football"],
    ["a child on a red swing", "a small child swings"],
]


def test_a_reference_itself_scores_highest() -> None:
    scores = score([texts[0] for texts in REFERENCES], REFERENCES)
    assert scores.bleu_4 == pytest.approx(100, abs=0.01)
    assert scores.rouge_l == pytest.approx(100, abs=0.01)
    assert scores.cider_d > 400  # 1000 is one reference only, repeated


def test_nothing_in_common_scores_nothing() -> None:
    scores = score(["zebra quartz"] * 3, REFERENCES)
    assert scores.bleu_4 == pytest.approx(0, abs=0.01)
    assert scores.rouge_l == 0
    assert scores.cider_d == 0


def test_rouge_l_is_the_f_measure_of_the_longest_common_sequence() -> None:
    """LCS "a dog the beach" has 4 words: precision 4/4, recall 4/6, beta 1.2."""
    scores = score(["a dog the beach"], [["a dog runs on the beach"]])
    precision, recall, beta_2 = 1.0, 4 / 6, 1.2**2
    expected = (1 + beta_2) * precision * recall / (recall + beta_2 * precision)
    assert scores.rouge_l == pytest.approx(100 * expected)


def test_case_and_punctuation_do_not_count_on_either_side() -> None:
    shouted = [[f"{text.upper()}!" for text in texts] for texts in REFERENCES]
    plain = [texts[0] for texts in REFERENCES]
    assert score([f"{text.title()}." for text in plain], shouted) == score(plain, REFERENCES)


def test_cider_d_is_zero_on_a_single_image() -> None:
    """Its word weights come from the evaluated set: this is known, and said in the docs."""
    assert score(["a dog"], [["a dog"]]).cider_d == 0


def test_bleu_is_pycocoevalcaps_own() -> None:
    from pycocoevalcap.bleu.bleu import Bleu

    captions = ["a dog runs along the sea", "two men are here", "a child on a very red small swing"]
    found = {i: [text] for i, text in enumerate(captions)}
    totals, each = Bleu(4).compute_score(dict(enumerate(REFERENCES)), found, verbose=0)

    measures = measure(captions, REFERENCES)

    for n in range(1, 5):
        assert measures[f"bleu_{n}"].value() == pytest.approx(100 * totals[n - 1])
        expected = [100 * value for value in each[n - 1]]
        assert measures[f"bleu_{n}"].each().tolist() == pytest.approx(expected)


def test_an_image_of_weight_two_counts_as_two_images() -> None:
    """Except for CIDEr-D, whose word weights must not follow the sample."""
    captions = ["a dog runs along the sea", "two men are here", "a child on a very red small swing"]
    weighed = measure(captions, REFERENCES)
    twice = measure([captions[0], *captions[:2]], [REFERENCES[0], *REFERENCES[:2]])
    for name in ("bleu_1", "bleu_2", "rouge_l"):
        value = weighed[name].value(np.array([2.0, 1.0, 0.0]))
        assert value == pytest.approx(twice[name].value())
    cider = weighed["cider_d"]
    each = cider.each()
    assert cider.value(np.array([2.0, 1.0, 0.0])) == pytest.approx((2 * each[0] + each[1]) / 3)


def test_normalising() -> None:
    assert normalise("  A man's  T-shirt, torn! ") == "a mans t shirt torn"


def test_the_training_reward_is_the_reported_cider_d_with_the_end_as_a_word() -> None:
    captions = ["a dog runs along the beach", "men play in a park", "a child swings"]
    reward = CiderReward(REFERENCES)
    rewards = [reward.score(image, text, ended=True) for image, text in enumerate(captions)]

    def ended(text: str) -> str:
        return f"{text} theend"

    reported = score(
        [ended(text) for text in captions],
        [[ended(text) for text in texts] for texts in REFERENCES],
    )
    assert 100 * sum(rewards) / len(rewards) == pytest.approx(reported.cider_d)


def test_a_caption_that_breaks_off_is_rewarded_less() -> None:
    reward = CiderReward(REFERENCES)
    whole = "a dog runs on the beach"
    assert reward.score(0, whole, ended=True) > reward.score(0, whole, ended=False)
