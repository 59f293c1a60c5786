"""CLIP scores, from a tiny random open_clip model that has both sides."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from clipcap import Captioner, DecodingOptions, OptionsError
from clipcap import bundle as bundles
from clipcap.data import read_evaluation_set
from clipcap.encoder import load_folder
from clipcap.evaluation.bootstrap import differences
from clipcap.evaluation.evaluate import evaluate
from clipcap.search import Hypothesis
from tests.tiny_bundle import PREPROCESS, TOWER, build_colour_data

IMAGES = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "cyan")]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An open_clip model whose text side knows CLIP's own vocabulary."""
    folder = tmp_path_factory.mktemp("clip")
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    sizes = {**TOWER, "text_cfg": text}
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**sizes).state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": sizes, "preprocess_cfg": PREPROCESS}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def reading(tiny_bundle: Path, clip_folder: Path) -> Captioner:
    """The tiny captioner with a CLIP that reads."""
    bundle = replace(bundles.load(tiny_bundle), encoder=load_folder(clip_folder))
    return Captioner(bundle, precision="fp32")


@torch.inference_mode()
def test_it_is_the_cosine_of_photograph_and_caption(reading: Captioner, clip_folder: Path) -> None:
    model = open_clip.create_model(f"local-dir:{clip_folder}", require_pretrained=True).eval()
    tokenize = open_clip.get_tokenizer("ViT-B-32")
    for image, (caption,) in zip(IMAGES, reading.caption(IMAGES), strict=True):
        seen = model.encode_image(reading.preprocess(image)[None], normalize=True)
        read = model.encode_text(tokenize([f"A photo depicts {caption.text}"]), normalize=True)
        expected = 2.5 * max(0.0, float((seen * read).sum()))
        assert caption.clip_score == pytest.approx(expected, abs=1e-5)


def test_candidates_are_ranked_by_it_where_asked_for(reading: Captioner) -> None:
    options = reading.defaults.override(beam_size=6, num_captions=6)
    by_clip = options.override(rank_by="clip_score")
    found = reading.caption(IMAGES, options)
    ranked = reading.caption(IMAGES, by_clip)
    best = reading.caption(IMAGES, by_clip.override(num_captions=1))
    assert found != ranked
    for before, after, (first,) in zip(found, ranked, best, strict=True):
        assert {one.text for one in before} == {one.text for one in after}
        scores = [one.clip_score or 0 for one in after]
        assert scores == sorted(scores, reverse=True)
        assert first.text == after[0].text


def test_without_embeddings_there_are_no_scores(reading: Captioner) -> None:
    pixels = torch.stack([reading.preprocess(image) for image in IMAGES])
    prefix = reading.prefix(reading.encode(pixels))
    assert [caption.clip_score for (caption,) in reading.decode(prefix)] == [None] * 3


def test_where_they_are_not_wanted_they_are_computed_only_to_rank(
    reading: Captioner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker keeps none, and a text side may be as large as the image tower."""
    embedding = reading.encode([reading.preprocess(image) for image in IMAGES])
    prefix = reading.prefix(embedding)
    ranked = reading.defaults.override(beam_size=4, rank_by="clip_score")
    found = reading.decode(prefix, ranked, embedding=embedding, clip_scores=False)
    assert found == reading.decode(prefix, ranked, embedding=embedding)
    monkeypatch.setattr("clipcap.captioner._with_clip_scores", None)  # not to be called
    found = reading.decode(prefix, embedding=embedding, clip_scores=False)
    assert [caption.clip_score for (caption,) in found] == [None] * 3


def test_a_tower_that_cannot_read_gives_no_scores(captioner: Captioner) -> None:
    [[caption]] = captioner.caption(IMAGES[:1])
    assert caption.clip_score is None
    with pytest.raises(OptionsError, match="clip_score"):
        captioner.caption(IMAGES[:1], captioner.defaults.override(rank_by="clip_score"))


def test_an_evaluation_has_it_where_the_tower_reads(
    reading: Captioner, captioner: Captioner, tmp_path: Path
) -> None:
    examples = read_evaluation_set(build_colour_data(tmp_path / "data"))
    images = [example.image.open() for example in examples]
    fits = [caption.clip_score for (caption,) in reading.caption(images)]
    found = evaluate(reading, examples)
    assert found.measures["clip_score"].each().tolist() == pytest.approx(
        [100 * (fit or 0) for fit in fits]
    )
    without = evaluate(captioner, examples)
    assert "clip_score" not in without.measures
    assert "clip_score" not in differences(found.measures, found.measures, len(examples))


@pytest.mark.parametrize("rank_by", ["clip_score", "log_probability"])
def test_what_was_cut_comes_last_whatever_ranks(
    rank_by: str, reading: Captioner, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = bundles.load(tiny_bundle).decoder
    texts = ["a red square", "a green thing", "all cyan"]
    options = DecodingOptions(beam_size=3, num_captions=3).override(rank_by=rank_by)
    for cut in texts:
        found = [Hypothesis(decoder.encode(text), -1.0, ended=text != cut) for text in texts]
        monkeypatch.setattr("clipcap.captioner.search", lambda *_, found=found: [found])
        (captions,) = reading.caption([IMAGES[0]], options)
        assert captions[-1].text.lower().startswith(cut)
        if rank_by == "clip_score":
            whole = [caption.clip_score or 0 for caption in captions[:-1]]
            assert whole == sorted(whole, reverse=True)
