"""What a reader who tried to break clipcap found, each held by the test that would have told."""

from __future__ import annotations

import gzip
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from clipcap import (
    BundleError,
    Captioner,
    ClipCapError,
    DataError,
    DecodingOptions,
    OptionsError,
    TrainingError,
)
from clipcap import bundle as bundles
from clipcap import decoder as decoders
from clipcap.captioner import as_sentence
from clipcap.cli import main
from clipcap.data import read_texts
from clipcap.data.folder import read_folder
from clipcap.data.pictures import ImageFile
from clipcap.encoder import load_folder
from clipcap.training.captions import PaddedTexts
from clipcap.training.config import TrainingConfig, read_config
from clipcap.training.dev import mean_loss
from clipcap.training.embeddings import fingerprint
from clipcap.training.run import train
from tests.tiny_bundle import TINY_CONFIG, build_colour_data, build_tiny_tower, going_on_from

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
    with pytest.raises(BundleError, match="files that are no bundle's"):
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


# Data.


def test_an_image_listed_twice_is_refused(tmp_path: Path) -> None:
    """One copy could be trained on while the other is held out."""
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    line = '{"file_name": "a.png", "captions": ["x"]}\n'
    (tmp_path / "metadata.jsonl").write_text(line * 2)
    with pytest.raises(DataError, match=r"line 2: a\.png is listed twice"):
        read_folder(tmp_path)


def test_a_caption_without_a_word_is_no_caption(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    row = {"file_name": "a.png", "captions": [".", "a dog"]}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row))
    assert read_folder(tmp_path)[0].captions == ("a dog",)


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_gzip_file_is_named(tmp_path: Path, damage: str) -> None:
    whole = gzip.compress(b'{"caption": "a dog and a cat"}\n' * 100)
    spoilt = whole[:-9] if damage == "cut" else whole[:17] + b"\xff\x00" + whole[19:]
    (tmp_path / "texts.jsonl.gz").write_bytes(spoilt)
    with pytest.raises(DataError, match=r"texts\.jsonl\.gz"):
        read_texts(tmp_path / "texts.jsonl.gz")


def test_train_and_dev_images_of_the_same_names_are_told_apart(tmp_path: Path) -> None:
    encoder = load_folder(build_tiny_tower(tmp_path / "tower"))
    prints = set()
    for split in ("train", "dev"):
        (tmp_path / split).mkdir()
        path = tmp_path / split / "1.png"
        Image.new("RGB", (4, 4)).save(path)
        shutil.copystat(tmp_path / "train" / "1.png", path)
        prints.add(fingerprint(encoder, [ImageFile(path, path.name)], views=1))
    assert len(prints) == 2


# Training.


def test_a_decoder_that_was_named_is_stored_as_trained(
    tiny_bundle: Path, tmp_path: Path, colours: Path, one_epoch: TrainingConfig
) -> None:
    source = tiny_bundle / "decoder"
    train(colours, tmp_path / "out", changed(one_epoch, decoder=str(source)))
    found = load_file(tmp_path / "out" / "decoder" / "model.safetensors")
    before = load_file(source / "model.safetensors")
    key = "transformer.h.0.attn.c_attn.weight"
    assert not torch.equal(found[key], before[key])
    assert bundles.read_config(tmp_path / "out").decoder is None
    assert str(tmp_path) not in (tmp_path / "out" / "bundle.json").read_text()


@pytest.mark.parametrize("prefix_length", [2, 3, 4, 5])
def test_captions_longer_than_the_decoder_reads_are_cut(
    tmp_path: Path, colours: Path, one_epoch: TrainingConfig, prefix_length: int
) -> None:
    for split in ("train", "dev"):
        path = colours / split / "metadata.jsonl"
        path.write_text(path.read_text().replace("a plain", "a very long and plain " * 10))
    config = changed(one_epoch, context=24, prefix_length=prefix_length)
    train(colours, tmp_path / "out", config)
    [[caption]] = Captioner.load(tmp_path / "out").caption([Image.new("RGB", (8, 8))])
    assert caption.mean_log_probability < 0


def test_a_prefix_that_leaves_no_room_is_refused_before_any_work(
    tmp_path: Path, colours: Path, one_epoch: TrainingConfig
) -> None:
    with pytest.raises(TrainingError, match="prefix_length"):
        train(colours, tmp_path / "out", changed(one_epoch, context=8, prefix_length=7))
    assert not (tmp_path / "out.work").exists()


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(TrainingError, match="width, 100, must be a multiple of heads, 6"):
        read_config(None, {"width": "100"})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("encoder", "ViT-B-32:openai"),
        ("decoder", "gpt2"),
        ("mapper", "transformer"),
        ("layers", 12),
        ("prefix_length", 10),
        ("normalize_embedding", False),
        ("presentation", "raw"),
    ],
)
def test_parts_that_the_bundle_brings_are_not_silently_ignored(
    tiny_bundle: Path, tmp_path: Path, colours: Path, field: str, value: object
) -> None:
    config = going_on_from(tiny_bundle, **{field: value})
    with pytest.raises(TrainingError, match=f"{field}: .* brings its own"):
        train(colours, tmp_path / "out", config)


def test_dropout_reaches_a_decoder_that_a_bundle_brings(
    tiny_bundle: Path, tmp_path: Path, colours: Path
) -> None:
    weights = []
    for dropout in (0.0, 0.5):
        out = tmp_path / f"out-{dropout}"
        train(colours, out, going_on_from(tiny_bundle, epochs=1, dropout=dropout))
        weights.append(load_file(out / "mapper.safetensors")["model.0.bias"])
    assert not torch.equal(*weights)


def test_a_bundle_is_not_trained_over_itself(copy_of: Copy, colours: Path) -> None:
    folder = copy_of()
    before = bundles.revision_of(folder)
    with pytest.raises(BundleError, match="another folder"):
        train(colours, folder, going_on_from(folder, epochs=1))
    assert bundles.revision_of(folder) == before


def test_a_mistake_does_not_claim_the_work_folder(
    tmp_path: Path, colours: Path, one_epoch: TrainingConfig
) -> None:
    with pytest.raises(BundleError):
        train(colours, tmp_path / "out", changed(one_epoch, encoder="nowhere:none"))
    train(colours, tmp_path / "out", one_epoch)


def test_a_run_does_not_go_on_with_other_data(
    tmp_path: Path, colours: Path, one_epoch: TrainingConfig
) -> None:
    train(colours, tmp_path / "out", one_epoch)
    path = colours / "train" / "metadata.jsonl"
    path.write_text(path.read_text().replace("a plain", "an ugly"))
    with pytest.raises(TrainingError, match="other values of data"):
        train(colours, tmp_path / "out", one_epoch)


def test_a_last_step_that_ruins_the_weights_is_told(
    tmp_path: Path, colours: Path, one_epoch: TrainingConfig
) -> None:
    ruinous = changed(one_epoch, learning_rate=1e30, clip_gradients=1e30, batch_size=64)
    with pytest.raises(TrainingError, match="learning_rate"):
        train(colours, tmp_path / "out", ruinous)


def test_each_token_of_dev_counts_once() -> None:
    """101 captions are a batch of 100 and one of 1, which must not weigh half."""
    texts = PaddedTexts([[1, 2]] * 100 + [[1] * 9], end_of_text_id=0)
    loss = mean_loss(lambda items: torch.tensor(float(100 in items.tolist())), texts)
    assert loss == pytest.approx(10 / 310)


def test_missing_scorers_are_told_before_any_work(
    tmp_path: Path,
    colours: Path,
    one_epoch: TrainingConfig,
    tiny_bundle: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pycocoevalcap.cider.cider", None)
    with pytest.raises(ClipCapError, match="pip install"):
        train(colours, tmp_path / "out", one_epoch)
    assert not (tmp_path / "out.work").exists()
    assert "pip install" in clipcap("evaluate", tiny_bundle, colours).output


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_works_on_a_gpu(tmp_path: Path, colours: Path, one_epoch: TrainingConfig) -> None:
    config = changed(one_epoch, epochs=2, self_critical_epochs=1, bf16=True)
    train(colours, tmp_path / "out", config)
    images = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    on_gpu = Captioner.load(tmp_path / "out").caption(images)
    on_cpu = Captioner.load(tmp_path / "out", device="cpu").caption(images)
    assert [c[0].text for c in on_gpu] == [c[0].text for c in on_cpu]


def test_self_critical_training_stays_within_the_decoders_positions(
    tmp_path: Path, colours: Path, one_epoch: TrainingConfig
) -> None:
    config = changed(one_epoch, context=16, prefix_length=3, epochs=0, self_critical_epochs=1)
    train(colours, tmp_path / "out", config)
    assert bundles.load(tmp_path / "out").config.provenance["history"]["self_critical"]


# The command.


def test_a_damaged_photo_does_not_stop_the_others(tiny_bundle: Path, tmp_path: Path) -> None:
    Image.new("RGB", (20, 20), "red").save(tmp_path / "red.png")
    spoilt = bytearray((tmp_path / "red.png").read_bytes())
    spoilt[11] = 0  # Pillow: ValueError
    (tmp_path / "bad.png").write_bytes(spoilt)
    done = clipcap("caption", "--model", tiny_bundle, tmp_path / "bad.png", tmp_path / "red.png")
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert "red" in done.stdout.split("\t")[1]


def test_a_message_of_many_lines_is_told_in_one(copy_of: Copy) -> None:
    folder = copy_of()
    path = folder / "clip" / "open_clip_model.safetensors"
    weights = load_file(path)
    del weights["visual.conv1.weight"]
    save_file(weights, path)
    done = clipcap("info", folder)
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert "visual.conv1.weight" in done.stderr


def test_scores_that_could_not_be_written_are_not_measured(
    tiny_bundle: Path, tmp_path: Path, colours: Path
) -> None:
    done = clipcap("evaluate", tiny_bundle, colours, "--json", tmp_path / "nowhere" / "s.json")
    assert done.exit_code == 1
    assert done.output.splitlines() == [f"Error: {tmp_path / 'nowhere'}: no such folder"]


def test_a_batch_of_no_images_is_refused(tiny_bundle: Path, colours: Path) -> None:
    done = clipcap("evaluate", tiny_bundle, colours, "--batch-size", 0)
    assert done.exit_code == 2
    assert "--batch-size" in done.output


def test_an_output_that_is_a_file_is_refused_before_any_work(tmp_path: Path, colours: Path) -> None:
    (tmp_path / "out").write_text("mine")
    done = clipcap("train", colours, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "is a file" in done.output
    assert not (tmp_path / "out.work").exists()


def test_a_recipe_that_is_no_text_is_told_in_one_line(tmp_path: Path, colours: Path) -> None:
    (tmp_path / "r.toml").write_bytes(b"\xff\xfe\x00")
    done = clipcap("train", colours, "--out", tmp_path / "out", "--config", tmp_path / "r.toml")
    assert done.exit_code == 1
    assert "r.toml" in done.stderr
    assert len(done.stderr.splitlines()) == 1
