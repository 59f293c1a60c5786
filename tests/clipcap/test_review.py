"""What a reader who tried to break clipcap found, each held by the test that would have told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from clipcap import (
    BundleError,
    Captioner,
    DecodingOptions,
    OptionsError,
)
from clipcap.captioner import as_sentence
from clipcap.cli import main
from clipcap.search import search
from clipcap.training.config import TrainingConfig
from tests.clipcap.test_search import VOCABULARY, random_decoder, random_prefix
from tests.tiny_bundle import TINY_CONFIG, build_colour_data, build_tiny_tower

Copy = Callable[[], Path]


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    return build_colour_data(tmp_path / "data")


@pytest.fixture
def one_epoch(tmp_path: Path) -> TrainingConfig:
    """Seconds of training, from parts."""
    tower = build_tiny_tower(tmp_path / "tower")
    return TINY_CONFIG.model_copy(update={"encoder": str(tower), "epochs": 1})


def changed(config: TrainingConfig, **fields: Any) -> TrainingConfig:
    return config.model_copy(update=fields)


def edit_json(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Captioner.load(folder)
    return str(caught.value)


def clipcap(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


# Search and captions.


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_a_caption_ends_where_the_decoder_has_no_more_positions(method: str) -> None:
    model, prefix = random_decoder(0), random_prefix(0)  # 32 positions, 3 taken by the prefix
    never = VOCABULARY + 1
    ((found,),) = search(model, prefix, never, DecodingOptions(method, max_tokens=500))
    assert len(found.token_ids) == 30  # the last token is not read again


def test_no_candidates_are_not_the_default_number() -> None:
    with pytest.raises(OptionsError, match="num_captions"):
        DecodingOptions().override(num_captions=0)


def test_greedy_can_be_chosen_where_the_default_is_several_candidates() -> None:
    several = DecodingOptions("beam", beam_size=3, num_captions=3)
    assert several.override(method="greedy").num_captions == 1
    with pytest.raises(OptionsError):
        several.override(method="greedy", num_captions=3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a dog runs", "A dog runs."),
        ("a dog runs .", "A dog runs."),
        ("a dog,", "A dog."),
        ("is it a bird?", "Is it a bird?"),
        ("look!", "Look!"),
        ("", ""),
    ],
)
def test_a_sentence_has_one_end(text: str, sentence: str) -> None:
    assert as_sentence(text) == sentence
