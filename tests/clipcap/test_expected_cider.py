"""Ranking by the CIDEr that can be expected: it is learned from captions, and known without any."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import pytest
import torch
from PIL import Image
from torch import Tensor

from clipcap import BundleError, Captioner, OptionsError, TrainingError
from clipcap import bundle as bundles
from clipcap.decoder import Decoder
from clipcap.expected_cider import (
    UNIT,
    WORDS_APART,
    Expectations,
    ExpectedCider,
    ExpectedCiderConfig,
    Weighing,
)
from clipcap.models import BUNDLED
from clipcap.ngrams import words
from clipcap.options import DecodingOptions
from clipcap.search import Hypothesis
from clipcap.training.config import read_config
from clipcap.training.dev import score_dev
from clipcap.training.expected_cider import People, expected_cider_stage
from clipcap.training.run import train
from clipcap.training.stage import run_stage
from tests.tiny_bundle import (
    COLOURS,
    EXPECTING_CONFIG,
    READING_TOWER,
    build_colour_data,
    build_tiny_tower,
)

IMAGES = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "cyan")]
SAID = [
    ("a dog runs in the snow", "a brown dog is running", "the dog plays in snow"),
    ("two men ride their bikes", "men on bikes", "two people ride down a hill"),
    ("a girl in a red dress", "the girl is smiling at a dog", "a small girl"),
]


@pytest.fixture(scope="module")
def bundled() -> Decoder:
    return bundles.load(BUNDLED).decoder


def knowing(people: People, image: int) -> ExpectedCider:
    """A network that knows what is said of one image, whatever it is shown."""
    config = ExpectedCiderConfig(embedding_dim=4, hidden=2, rank=1)
    network = ExpectedCider(config, people.listed).eval()
    network.usual.copy_(people.weights.to_dense()[image] / UNIT)
    network.rarity.copy_(torch.tensor([people.rarity[ngram] for ngram in people.listed]))
    network.others.copy_(torch.tensor(people.others))
    with torch.no_grad():
        network.words.weight.zero_()
        network.words.bias.copy_(people.words[image])
    return network


def cosines(weigh: Weighing, one: str, other: str) -> float:
    """The cosine of their n-grams' weights, in the mean over the lengths."""
    a, b = weigh(one), weigh(other)
    return sum(weight * b.get(ngram, 0) for ngram, weight in a.items()) / 4


@pytest.mark.parametrize("image", range(3))
def test_what_is_expected_is_the_mean_over_what_people_say(image: int, bundled: Decoder) -> None:
    people = People(SAID)
    weigh = Weighing(people.rarity, people.others)
    candidates = ["a dog in the snow", "two men", "a girl smiling at men", "a dog in a red dress"]
    network = knowing(people, image)
    (scores,) = Expectations(network, bundled.tokenizer).scores(torch.zeros(1, 4), [candidates])
    usual = mean(len(words(caption)) for caption in SAID[image])
    for candidate, score in zip(candidates, scores, strict=True):
        near = math.exp(-((len(words(candidate)) - usual) ** 2) / (2 * WORDS_APART**2))
        each = [cosines(weigh, candidate, caption) for caption in SAID[image]]
        assert score == pytest.approx(10 * mean(each) * near, abs=1e-4)


def test_rare_words_weigh_more_and_each_length_as_much() -> None:
    people = People(SAID)
    weights = Weighing(people.rarity, people.others)("a girl in a wig")
    assert weights[("girl",)] > weights[("a",)] > 0
    for length in range(1, 5):
        squares = [weight**2 for ngram, weight in weights.items() if len(ngram) == length]
        assert sum(squares) == pytest.approx(1)


def test_a_caption_without_words_expects_nothing(bundled: Decoder) -> None:
    network = knowing(People(SAID), 0)
    scores = Expectations(network, bundled.tokenizer).scores(torch.zeros(2, 4), [["", "a dog"], []])
    assert scores[0][0] == 0 < scores[0][1]
    assert scores[1] == []


def test_candidates_stay_what_search_found_and_whole_ones_come_first(bundled: Decoder) -> None:
    said = ("two men on bikes", "a dog runs", "a dog in the snow", "a girl")
    men, running, snow, girl = [
        Hypothesis(bundled.tokenizer.encode(f" {text}"), -i / 3, ended=text != "a dog runs")
        for i, text in enumerate(said)
    ]
    expectations = Expectations(knowing(People(SAID), 0), bundled.tokenizer)
    ranked = expectations.rank([[men, running, snow], [girl]], torch.zeros(2, 4))
    assert ranked == [[snow, men, running], [girl]]


@pytest.mark.slow
def test_what_embeddings_tell_of_is_learned(tmp_path: Path) -> None:
    """Of images that are there, and of such as are not: each kind knows words of its own."""
    generator = torch.Generator().manual_seed(0)
    things = ["dog", "cat", "horse", "boat", "house", "tree"]
    places = torch.randn(len(things), 16, generator=generator)
    kinds = [i % 3 for i in range(60)] + [3 + i % 3 for i in range(60)]
    told = [(f"a {thing} is here", f"this {thing} waits", "a picture") for thing in things]
    said = [told[kind] for kind in kinds]

    def see(items: Tensor) -> Tensor:
        return places[torch.tensor(kinds)[items]] + 0.3 * torch.randn(len(items), 16)

    config = EXPECTING_CONFIG.model_copy(update={"expected_cider_epochs": 20})
    images = see(torch.arange(60))[:, None]
    stage, network = expected_cider_stage(said[:60], said[60:], see, (told, places), images, config)
    history = run_stage(stage, config, tmp_path)

    assert history[-1]["dev_loss"] < history[0]["dev_loss"]
    tokenizer = bundles.load(BUNDLED).decoder.tokenizer
    captions = [f"a {thing} waits" for thing in things]
    scores = Expectations(network, tokenizer).scores(places, [captions] * len(things))
    best = [of_one.index(max(of_one)) for of_one in scores]
    assert best == list(range(len(things)))


@pytest.mark.parametrize(
    ("said", "spread", "named"),
    [
        ([("...",), ("",)], 1, "no word"),
        ([("a dog",), ("two men",)], 0, "same embedding"),
        ([("a dog",), ("a dog",)], 1, "same captions"),
    ],
)
def test_where_there_is_nothing_to_learn_it_says_so(
    said: list[tuple[str]], spread: int, named: str
) -> None:
    images = spread * torch.eye(2, 4)[:, None]
    dev = (said, images[:, 0])
    with pytest.raises(TrainingError, match=named):
        expected_cider_stage(said, [], lambda i: images[i, 0], dev, images, EXPECTING_CONFIG)


@pytest.mark.slow
def test_a_bundle_ranks_by_it_and_keeps_it(expecting_bundle: Path, tmp_path: Path) -> None:
    bundle = bundles.load(expecting_bundle)
    assert bundle.expected_cider is not None
    again = tmp_path / "again"
    bundles.save(
        again,
        bundle.config,
        encoder=bundle.encoder,
        decoder=bundle.decoder,
        mapper=bundle.mapper,
        expected_cider=bundle.expected_cider,
        card="",
    )
    assert bundles.revision_of(again) == bundle.revision
    with Captioner.load(again) as captioner, Captioner.load(expecting_bundle) as first:
        options = captioner.defaults.override(num_captions=6)
        found = captioner.caption(IMAGES, options)
        assert found == first.caption(IMAGES, options)
        likeliest = captioner.caption(IMAGES, options.override(rank_by="log_probability"))
        assert found != likeliest
        for ranked, plain in zip(found, likeliest, strict=True):
            assert {one.text for one in ranked} == {one.text for one in plain}
        assert found == [captioner.caption([image], options)[0] for image in IMAGES]


def test_the_caption_for_a_colour_names_it(expecting_bundle: Path) -> None:
    """Of four sentences in all eight colours the right one can be expected to score."""
    bundle = bundles.load(expecting_bundle)
    assert bundle.expected_cider is not None
    expectations = Expectations(bundle.expected_cider, bundle.decoder.tokenizer)
    captions = [f"a plain {colour} picture" for colour in COLOURS]
    with Captioner(bundle) as captioner:
        pictures = [Image.new("RGB", (42, 30), colour) for colour in COLOURS]
        embedding = captioner.encode([captioner.preprocess(picture) for picture in pictures])
    scores = expectations.scores(embedding, [captions] * len(COLOURS))
    right = [of_one.index(max(of_one)) == i for i, of_one in enumerate(scores)]
    assert sum(right) >= 6


def test_a_bundle_written_over_another_keeps_nothing_of_it(
    expecting_bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(expecting_bundle, folder)
    bundle = bundles.load(expecting_bundle)
    plain = bundle.config.model_copy(update={"expected_cider": None, "decoding": DecodingOptions()})
    bundles.save(
        folder,
        plain,
        encoder=bundle.encoder,
        decoder=bundle.decoder,
        mapper=bundle.mapper,
        card="",
    )
    assert bundles.load(folder).expected_cider is None
    assert not (folder / "ngrams.txt").exists()
    assert not (folder / "expected_cider.safetensors").exists()


def test_where_it_was_not_learned_it_cannot_be_asked_for(captioner: Captioner) -> None:
    options = captioner.defaults.override(beam_size=3, rank_by="expected_cider")
    with pytest.raises(OptionsError, match="learned"):
        captioner.caption(IMAGES, options)


def test_it_cannot_be_asked_for_without_an_embedding(expecting_bundle: Path) -> None:
    with Captioner.load(expecting_bundle) as captioner:
        prefix = captioner.prefix(captioner.encode([captioner.preprocess(IMAGES[0])]))
        with pytest.raises(OptionsError, match="embeddings"):
            captioner.decode(prefix)
        assert captioner.decode(prefix, captioner.defaults.override(method="greedy"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda folder: (folder / "ngrams.txt").unlink(), "ngrams.txt"),
        (lambda folder: (folder / "ngrams.txt").write_bytes(b"\xff"), "ngrams.txt"),
        (lambda folder: (folder / "ngrams.txt").write_text("a\n"), "expected_cider.safetensors"),
        (lambda folder: (folder / "expected_cider.safetensors").unlink(), "no such file"),
    ],
)
def test_a_damaged_one_is_refused(
    expecting_bundle: Path, tmp_path: Path, change: Callable[[Path], None], named: str
) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(expecting_bundle, folder)
    change(folder)
    with pytest.raises(BundleError, match=named):
        bundles.load(folder)


def test_a_recipe_that_ranks_by_what_it_does_not_learn_is_refused() -> None:
    decoding = {"rank_by": "expected_cider"}
    with pytest.raises(TrainingError, match="expected_cider_epochs"):
        read_config(None, {"decoding": decoding})
    read_config(None, {"decoding": decoding, "expected_cider_epochs": 1})
    with pytest.raises(TrainingError, match="text_only"):
        read_config(None, {"text_only": True, "expected_cider_epochs": 1})


@pytest.mark.slow
def test_a_run_measures_dev_by_what_its_bundle_will_say(
    bundled: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[list[str]] = []
    monkeypatch.setattr("clipcap.training.dev.score", lambda texts, _: said.append(texts))
    embeddings = torch.randn(4, 8 * bundled.dim, generator=torch.Generator().manual_seed(0)) / 10
    mapper = torch.nn.Unflatten(1, (8, bundled.dim))
    network = bundles.load(BUNDLED).expected_cider
    assert network is not None
    narrow = ExpectedCiderConfig(embedding_dim=8 * bundled.dim, hidden=4, rank=192)
    wide = ExpectedCider(narrow, network.listed).eval()
    for name in ("usual", "basis", "rarity", "others"):
        getattr(wide, name).copy_(getattr(network, name))
    beams = DecodingOptions(beam_size=5, max_tokens=12)
    for options in (beams, beams.override(rank_by="expected_cider")):
        score_dev(mapper, bundled, embeddings, [], options, wide)
    plain, ranked = said
    assert plain != ranked
    assert len(plain) == len(ranked) == 4


def test_a_tower_that_reads_is_needed_for_what_is_not_there(tmp_path: Path) -> None:
    """Known before the hours that a run takes."""
    texts = tmp_path / "texts.jsonl"
    texts.write_text('{"captions": ["a red square", "all of it is red"]}\n')
    data = build_colour_data(tmp_path / "data")
    tower = build_tiny_tower(tmp_path / "tower")
    config = EXPECTING_CONFIG.model_copy(
        update={"encoder": str(tower), "pretrain_text": texts, "epochs": 0}
    )
    with pytest.raises(TrainingError, match="text"):
        train(data, tmp_path / "out", config.model_copy(update={"pretrain_epochs": 0}))
    reading = build_tiny_tower(tmp_path / "reading", READING_TOWER)
    config = config.model_copy(
        update={"encoder": str(reading), "expected_cider_blur": 0.5, "expected_cider_epochs": 1}
    )
    train(data, tmp_path / "out", config)
    assert bundles.load(tmp_path / "out").expected_cider is not None
