"""What a reader who tried to break clipcap found, each held by the test that would have told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file
from torch import Tensor

from clipcap import (
    BundleError,
    Captioner,
    DecodingOptions,
    OptionsError,
)
from clipcap import bundle as bundles
from clipcap import decoder as decoders
from clipcap.captioner import as_sentence
from clipcap.cli import main
from clipcap.encoder import load_folder
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


# Bundles.


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("decoder/config.json", {"n_embd": "wide"}),
        ("decoder/config.json", {"n_head": 0}),
        ("decoder/config.json", {"activation_function": "none such"}),
        ("decoder/tokenizer.json", {"model": {}}),
        ("decoder/tokenizer.json", {"added_tokens": None}),
        ("clip/open_clip_config.json", {"model_cfg": {}}),
        ("clip/open_clip_config.json", {"model_cfg": []}),
        ("clip/open_clip_config.json", {"preprocess_cfg": None}),
    ],
)
def test_it_names_the_file_of_a_model_that_makes_no_sense(
    copy_of: Copy, file: str, change: dict[str, Any]
) -> None:
    folder = copy_of()
    edit_json(folder / file, lambda data: data.update(change))
    assert str(folder / file) in refusal(folder)


@pytest.mark.parametrize(
    "file", ["decoder/config.json", "decoder/tokenizer.json", "clip/open_clip_config.json"]
)
@pytest.mark.parametrize("text", ["[]", '"x"', "null", "{", ""])
def test_it_names_a_file_that_is_no_json_object(copy_of: Copy, file: str, text: str) -> None:
    folder = copy_of()
    (folder / file).write_text(text)
    assert str(folder / file) in refusal(folder)


def test_it_refuses_a_tokenizer_of_more_tokens_than_the_model_has(copy_of: Copy) -> None:
    folder = copy_of()
    path = folder / "decoder" / "tokenizer.json"
    edit_json(path, lambda data: data["model"]["vocab"].update({"another": 300}))
    assert f"{path}: 301 tokens" in refusal(folder)


def drop(weights: dict[str, Tensor], key: str) -> None:
    del weights[key]


def add(weights: dict[str, Tensor], key: str) -> None:
    weights[key] = torch.zeros(3)


def shorten(weights: dict[str, Tensor], key: str) -> None:
    weights[key] = weights[key][:-1].clone()


def enlarge(weights: dict[str, Tensor], key: str) -> None:
    """For a tower that sees 3 x 3 patches: open_clip would resize it to this one's 2 x 2."""
    weights[key] = torch.zeros(10, weights[key].shape[1])


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (drop, "visual.conv1.weight"),
        (add, "visual.conv2.weight"),
        (shorten, "visual.conv1.weight"),
        (enlarge, "visual.positional_embedding"),
    ],
)
def test_it_names_file_and_key_of_a_tower_that_does_not_fit(
    copy_of: Copy, change: Callable[[dict[str, Tensor], str], None], key: str
) -> None:
    folder = copy_of()
    path = folder / "clip" / "open_clip_model.safetensors"
    weights = load_file(path)
    change(weights, key)
    save_file({name: weight.float() for name, weight in weights.items()}, path)
    message = refusal(folder)
    assert str(path) in message
    assert key in message


def test_a_pickle_by_a_safe_name_is_refused(copy_of: Copy) -> None:
    folder = copy_of()
    torch.save({"model.0.bias": torch.zeros(1)}, folder / "mapper.safetensors")
    assert str(folder / "mapper.safetensors") in refusal(folder)


def test_a_pickle_in_capitals_is_refused(copy_of: Copy) -> None:
    folder = copy_of()
    (folder / "WEIGHTS.PT").write_bytes(b"never read")
    assert "WEIGHTS.PT" in refusal(folder)


def test_it_refuses_a_prefix_longer_than_the_decoder_reads(copy_of: Copy) -> None:
    folder = copy_of()
    edit_json(folder / "bundle.json", lambda data: data["mapper"].update(prefix_length=49))
    assert "mapper.prefix_length is 49, but the decoder has 48 positions" in refusal(folder)


def test_a_decoder_of_another_kind_is_not_filled_with_random_weights(
    copy_of: Copy, tmp_path: Path
) -> None:
    folder = copy_of() / "decoder"
    weights = load_file(folder / "model.safetensors")
    del weights["transformer.h.1.attn.c_attn.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BundleError, match=r"h\.1\.attn\.c_attn\.weight"):
        decoders.load_named(str(folder))


def test_saving_in_place_of_a_bundle_leaves_nothing_of_it(copy_of: Copy, tiny_bundle: Path) -> None:
    folder = copy_of()
    (folder / "decoder" / "left.json").write_text("{}")
    (folder / "NOTES.txt").write_text("my own")
    loaded = bundles.load(tiny_bundle)
    bundles.save(
        folder,
        loaded.config,
        encoder=loaded.encoder,
        decoder=loaded.decoder,
        mapper=loaded.mapper,
        card="",
    )
    assert bundles.load(folder).revision == loaded.revision
    assert (folder / "NOTES.txt").exists()


def test_a_folder_that_is_no_bundle_loses_nothing(tiny_bundle: Path, tmp_path: Path) -> None:
    """`--out .` in a folder with a `decoder` of its own."""
    (tmp_path / "decoder").mkdir()
    (tmp_path / "decoder" / "radio.py").write_text("mine")
    loaded = bundles.load(tiny_bundle)
    bundles.save(
        tmp_path,
        loaded.config,
        encoder=loaded.encoder,
        decoder=loaded.decoder,
        mapper=loaded.mapper,
        card="",
    )
    assert (tmp_path / "decoder" / "radio.py").read_text() == "mine"


def test_an_encoder_takes_pixels_to_where_it_is(tmp_path: Path) -> None:
    """Training moves the tower to the GPU and reads images on the CPU."""
    encoder = load_folder(build_tiny_tower(tmp_path / "tower"))
    encoder.visual.to("meta")
    assert encoder.encode(torch.zeros(2, 3, 32, 32)).device.type == "meta"
