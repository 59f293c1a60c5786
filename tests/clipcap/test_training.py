"""Training data, text, embeddings, and a loop that a kill does not change."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import psutil
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file

from clipcap import DataError, TrainingError
from clipcap import bundle as bundles
from clipcap.bundle import read_config as read_bundle_config
from clipcap.data import read_evaluation_set, read_splits, read_texts
from clipcap.data.folder import read_folder
from clipcap.data.pictures import ImageFile
from clipcap.encoder import load_folder
from clipcap.training.batches import make_batches
from clipcap.training.captions import IGNORED, PaddedTexts
from clipcap.training.config import read_config
from clipcap.training.curve import draw_curve
from clipcap.training.embeddings import any_view, embed
from clipcap.training.model import PrefixLanguageModel, caption_loss
from clipcap.training.parts import Parts
from clipcap.training.run import train
from clipcap.training.stages import (
    captioning_stage,
    mapper_pretraining_stage,
    pretraining_stage,
)
from clipcap.training.text import clean, train_tokenizer
from clipcap.training.work_folder import claimed
from tests.clipcap.data.sets import picture, write_shard
from tests.clipcap.decoders import forced_log_probability, random_decoder, random_prefix
from tests.tiny_bundle import (
    READING_TOWER,
    TINY_CONFIG,
    build_colour_data,
    build_tiny_tower,
    going_on_from,
)


def write_set(folder: Path, lines: list[str], images: tuple[str, ...] = ("a.png",)) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in images:
        Image.new("RGB", (8, 8), "red").save(folder / name)
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"captions": ["x"]}', "file_name"),
        ('{"file_name": "a.png"}', "captions"),
        ('{"file_name": "a.png", "captions": "x"}', "captions"),
        ('{"file_name": "a.png", "captions": [" "]}', "no caption"),
        ('{"file_name": "b.png", "captions": ["x"]}', "b.png: no such file"),
    ],
)
def test_bad_metadata_is_refused_with_file_and_line(tmp_path: Path, line: str, named: str) -> None:
    good = '{"file_name": "a.png", "captions": ["x"]}'
    folder = write_set(tmp_path / "set", [good, line])
    with pytest.raises(DataError, match=named) as caught:
        read_folder(folder)
    assert f"{folder / 'metadata.jsonl'}, line 2" in str(caught.value)


def test_a_folder_without_metadata_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metadata\.jsonl: no such file"):
        read_folder(tmp_path)


def test_the_held_out_share_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    names = tuple(f"{i}.png" for i in range(20))
    lines = [json.dumps({"file_name": name, "captions": ["x"]}) for name in names]
    folder = write_set(tmp_path / "set", lines, names)
    first = read_splits(folder, held_out=0.25, seed=1)
    assert first == read_splits(folder, held_out=0.25, seed=1)
    assert first != read_splits(folder, held_out=0.25, seed=2)
    assert (len(first.train), len(first.dev)) == (15, 5)
    assert not {e.image for e in first.train} & {e.image for e in first.dev}


def test_train_and_dev_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    data = build_colour_data(tmp_path / "data")
    splits = read_splits(data, held_out=0.1, seed=0)
    assert (len(splits.train), len(splits.dev)) == (16, 8)
    assert read_evaluation_set(data) == splits.dev == read_evaluation_set(data / "dev")


def test_texts_are_read_gzipped_or_not(tmp_path: Path) -> None:
    import gzip

    lines = b'{"caption": "a dog"}\n{"caption": "a cat"}\n'
    (tmp_path / "t.jsonl").write_bytes(lines)
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(lines))
    assert read_texts(tmp_path / "t.jsonl") == read_texts(tmp_path / "t.jsonl.gz")
    assert read_texts(tmp_path / "t.jsonl") == [("a dog",), ("a cat",)]
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(lines)[:-12])
    with pytest.raises(DataError, match=r"cut\.jsonl\.gz"):
        read_texts(tmp_path / "cut.jsonl.gz")


def test_texts_of_one_image_are_read_together(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"captions": ["a dog", "an animal"]}\n{"caption": "a cat"}\n')
    assert read_texts(path) == [("a dog", "an animal"), ("a cat",)]
    for line in ('{"captions": "a dog"}', '{"captions": [1]}', '{"text": "a dog"}'):
        path.write_text(line)
        with pytest.raises(DataError, match="line 1"):
            read_texts(path)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("A dog  runs . ", "a dog runs"),
        ('A man , in a "red" hat , waves .', "a man, in a red hat, waves"),
        ("Is it a bird ?", "is it a bird?"),
    ],
)
def test_cleaning_captions(raw: str, cleaned: str) -> None:
    assert clean(raw, lowercase=True) == cleaned


def test_no_caption_is_outside_the_vocabulary() -> None:
    tokenizer = train_tokenizer(["a dog runs", "a cat sits"] * 5, vocab_size=300)
    for text in ("a zebra!", "naïve café", "日本", "🙂"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_every_item_is_in_one_batch_and_the_order_follows_the_epoch() -> None:
    lengths = [i % 7 for i in range(1000)]
    first = make_batches(lengths, 16, seed=1, epoch=0)
    assert sorted(item for batch in first for item in batch) == list(range(1000))
    assert first == make_batches(lengths, 16, seed=1, epoch=0)
    assert first != make_batches(lengths, 16, seed=1, epoch=1)


def test_padding_changes_neither_loss_nor_gradients() -> None:
    model, prefix = random_decoder(0), random_prefix(0)
    tokens = torch.tensor([[1, 5, 2, 3]])
    losses, gradients = [], []
    for padding in (0, 5):
        targets = torch.nn.functional.pad(tokens, (0, padding), value=IGNORED)
        model.zero_grad()
        loss = caption_loss(model, prefix, targets, label_smoothing=0.1)
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        gradients.append(model.transformer.h[0].attn.c_attn.weight.grad)
    torch.testing.assert_close(losses[0], losses[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_the_loss_is_the_mean_negative_log_probability_of_every_token() -> None:
    model, prefix = random_decoder(2), random_prefix(2)
    ids = [4, 1, 7, 3]
    loss = caption_loss(model, prefix, torch.tensor([ids]), label_smoothing=0.0)
    by_hand = forced_log_probability(model, prefix[0], ids) / len(ids)
    assert loss.item() == pytest.approx(-by_hand, abs=1e-5)


def test_every_token_weighs_alike_in_batches_of_like_lengths() -> None:
    """Short captions together and long ones together pull as one batch of all of them would."""
    texts = PaddedTexts([[1, 2], [3, 4], [1] * 9, [2] * 9], end_of_text_id=0)
    model, prefix = random_decoder(0), random_prefix(0).expand(4, -1, -1)
    gradients = []
    for batches in ([[0, 1, 2, 3]], [[0, 1], [2, 3]]):
        model.zero_grad()
        for batch in batches:
            items = torch.tensor(batch)
            loss = caption_loss(model, prefix[items], texts.batch(items), label_smoothing=0.0)
            (loss * texts.share(items) / len(batches)).backward()  # type: ignore[no-untyped-call]
        gradients.append(model.transformer.h[0].attn.c_attn.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_end_of_text_is_a_target() -> None:
    batch = PaddedTexts([[5, 6], [7]], end_of_text_id=0).batch(torch.tensor([0, 1]))
    assert batch.tolist() == [[5, 6, 0, IGNORED], [7, 0, IGNORED, IGNORED]]


def test_an_image_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_folder(build_tiny_tower(tmp_path / "tower"))
    pictures = [ImageFile(tmp_path / f"{i}.png", f"{i}.png") for i in range(5)]
    for i, image in enumerate(pictures):
        Image.new("RGB", (9, 9), (i * 40, 0, 0)).save(image.path)
    first = embed(encoder, pictures, tmp_path / "cache", label="test")

    def never(_: torch.Tensor) -> torch.Tensor:
        raise AssertionError("encoded again")

    with monkeypatch.context() as patch:
        patch.setattr(encoder, "encode", never)
        torch.testing.assert_close(
            embed(encoder, pictures, tmp_path / "cache", label="test"), first
        )

    Image.new("RGB", (12, 12), "blue").save(pictures[0].path)
    again = embed(encoder, pictures, tmp_path / "cache", label="test")
    assert not torch.allclose(again[0], first[0])
    torch.testing.assert_close(again[1:], first[1:])


def test_embeddings_are_read_from_the_disk_as_they_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of millions of images need not fit in memory."""
    monkeypatch.setattr("clipcap.training.embeddings.SHARD_IMAGES", 2)
    encoder = load_folder(build_tiny_tower(tmp_path / "tower"))
    pictures = [ImageFile(tmp_path / f"{i}.png", f"{i}.png") for i in range(5)]
    for i, image in enumerate(pictures):
        Image.new("RGB", (9, 9), (i * 40, 0, 0)).save(image.path)
    plain = embed(encoder, pictures, tmp_path / "cache", label="test", views=2)
    unit = embed(encoder, pictures, tmp_path / "cache", label="test", views=2, unit=True)
    assert plain.shape == (5, 2, encoder.embedding_dim)
    (cache,) = (tmp_path / "cache").iterdir()
    if hasattr(psutil.Process, "memory_maps"):  # where the system tells
        mapped = {Path(one.path) for one in psutil.Process().memory_maps()}
        assert {cache / "all.f32", cache / "unit.f32"} <= mapped
    shards = [load_file(path)["embeddings"] for path in sorted(cache.glob("*.safetensors"))]
    assert [len(shard) for shard in shards] == [2, 2, 1]
    torch.testing.assert_close(plain, torch.cat(shards))
    torch.testing.assert_close(unit, torch.nn.functional.normalize(plain, dim=-1))


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    encoder = load_folder(build_tiny_tower(tmp_path / "tower"))
    (tmp_path / "bad.jpg").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"bad\.jpg"):
        embed(
            encoder, [ImageFile(tmp_path / "bad.jpg", "bad.jpg")], tmp_path / "cache", label="test"
        )


def test_a_recipe_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text("learning_rat = 1")
    with pytest.raises(TrainingError, match=r"r\.toml: learning_rat"):
        read_config(recipe, {})
    recipe.write_text("epochs = 3")
    assert read_config(recipe, {"epochs": "5"}).epochs == 5
    with pytest.raises(TrainingError, match="epochs"):
        read_config(recipe, {"epochs": "many"})


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    config = TINY_CONFIG.model_copy(
        update={
            "encoder": str(build_tiny_tower(tmp_path / "tower")),
            "learning_rate": 1e30,
            "clip_gradients": 1e30,
        }
    )
    with pytest.raises(TrainingError, match="learning_rate"):
        train(build_colour_data(tmp_path / "data"), tmp_path / "out", config)


@pytest.mark.slow
def test_no_dev_caption_is_read_while_pretraining(tmp_path: Path) -> None:
    from clipcap.training.run import _read_first, _unseen

    data = build_colour_data(tmp_path / "data")
    splits = read_splits(data, held_out=0.1, seed=0)
    text = tmp_path / "text.jsonl"
    text.write_text(
        '{"caption": "A red square."}\n{"captions": ["a red square", "A dog.", "a cat"]}\n'
        '{"captions": ["A red-sqare !", "a gray square", "un carré"]}\n'
    )
    config = TINY_CONFIG.model_copy(update={"pretrain_text": text})
    unseen = _unseen(config, splits)
    # "a red square" is in dev, and so it is in other spellings
    assert unseen == [("a dog", "a cat"), ("a gray square", "un carré")]
    read_first = _read_first(unseen, config, splits)
    # dev has it, so even train's own copy is left out
    assert all("a red square" not in captions for captions in read_first)


@pytest.mark.slow
def test_each_stage_smooths_labels_by_its_own_share(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = bundles.load(tiny_bundle)
    parts = Parts(bundle.encoder, bundle.decoder, bundle.mapper)
    module = PrefixLanguageModel(bundle.mapper, bundle.decoder.model)
    splits = read_splits(build_colour_data(tmp_path / "data"), held_out=0.1, seed=0)
    images = torch.zeros(len(splits.train), 1, bundle.mapper.config.embedding_dim)
    told = [example.captions for example in splits.train]

    def losses(**fields: float) -> list[float]:
        config = TINY_CONFIG.model_copy(update=fields)
        see = partial(any_view, images)
        captioning = captioning_stage(parts, module, splits, see, dict, config)
        imagined = Mock(draw=lambda items: images[items % len(images), 0])
        telling = mapper_pretraining_stage(parts, module, told, imagined, dict, config)
        reading = pretraining_stage(parts, told[0], splits, config)
        items = torch.arange(4)
        return [stage.loss(items).item() for stage in (reading, telling, captioning)]

    *pretraining, captioning = losses()
    *smoothed, plain = losses(pretrain_label_smoothing=0.2)
    assert all(more > less for more, less in zip(smoothed, pretraining, strict=True))
    assert plain == captioning
    *plain_ones, more = losses(label_smoothing=0.2)
    assert plain_ones == pretraining
    assert more > captioning


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path) -> None:
    """kill -9 in the middle of each stage; dropout makes the random state matter."""
    data = build_colour_data(tmp_path / "data")
    tower = build_tiny_tower(tmp_path / "tower", READING_TOWER)
    text = tmp_path / "text.jsonl"
    told = '{{"captions": ["dog number {0} runs", "{0} is running", "{0} dogs", "a dog", "{0}"]}}\n'
    text.write_text("".join(told.format(i) for i in range(40)))
    fields = {
        **TINY_CONFIG.model_dump(
            mode="json", exclude={"decoding", "start_from"}, exclude_none=True
        ),
        "start-from": "",
        "encoder": tower,
        "pretrain_text": text,
        "pretrain_mapper": True,
        "dropout": 0.2,
        "mapper_dropout": 0.2,
        "tower_epochs": 2,
        "tower_batch": 16,
        "tower_groups": 1,
        "tower_paraphrases": 0.5,
        "tower_drop_path": 0.1,
        "average": 0.9,
        "views": 2,
        "blur": 0.5,
        "epochs": 8,
        "together_epochs": 4,
        "together_batch": 8,
        "self_critical_epochs": 2,
        "self_critical_batch": 8,
        "expected_cider_epochs": 20,
        "expected_cider_blur": 0.5,
        "checkpoint_steps": 1,
    }
    options = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]

    def command(out: Path) -> list[str]:
        return [sys.executable, "-m", "clipcap", "train", str(data), "--out", str(out), *options]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    subprocess.run(command(whole), check=True, capture_output=True)
    kill_once(command(killed), killed.with_name("killed.work") / "tower")
    kill_once(command(killed), killed.with_name("killed.work") / "pretraining")
    kill_once(command(killed), killed.with_name("killed.work") / "captioning")
    kill_once(command(killed), killed.with_name("killed.work") / "together")
    kill_once(command(killed), killed.with_name("killed.work") / "self_critical")
    kill_once(command(killed), killed.with_name("killed.work") / "expected_cider")
    subprocess.run(command(killed), check=True, capture_output=True)

    stored = sorted(path.relative_to(whole) for path in whole.rglob("*.safetensors"))
    assert len(stored) == 4
    assert (whole / "ngrams.txt").read_text() == (killed / "ngrams.txt").read_text()
    for file in stored:
        expected, found = load_file(whole / file), load_file(killed / file)
        for key, tensor in expected.items():
            torch.testing.assert_close(found[key], tensor, rtol=0, atol=0)


def kill_once(command: list[str], stage: Path) -> None:
    """Start a run and kill it once the stage has written a checkpoint of its third step."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = stage / "checkpoint.pt"
    deadline = time.monotonic() + 120
    steps = 0
    while steps < 3:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        if checkpoint.exists():
            progress = torch.load(checkpoint, weights_only=True)["progress"]
            steps = progress["epoch"] * 100 + progress["step"]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.slow
def test_a_tower_may_be_tuned_alone(tmp_path: Path) -> None:
    """For a mean of several (recipes/average_towers.py), before anything learns to caption."""
    data = build_colour_data(tmp_path / "data")
    text = tmp_path / "text.jsonl"
    text.write_text('{"captions": ["a dog runs", "there is a dog"]}\n')
    alone = {
        "encoder": str(build_tiny_tower(tmp_path / "tower", READING_TOWER)),
        "pretrain_text": text,
        "tower_epochs": 1,
        "tower_groups": 1,
        "tower_paraphrases": 0.5,
        "pretrain_epochs": 0,
        "epochs": 0,
    }
    train(data, tmp_path / "out", TINY_CONFIG.model_copy(update=alone))
    load_folder(tmp_path / "out.work" / "tuned")
    made = read_bundle_config(tmp_path / "out").provenance["history"]
    assert {stage: len(epochs) for stage, epochs in made.items()} == {"tower": 1}


def test_a_run_goes_on_only_from_the_weights_that_it_began_with(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    data = build_colour_data(tmp_path / "data")
    begun = tmp_path / "begun"
    shutil.copytree(tiny_bundle, begun)
    train(data, tmp_path / "out", going_on_from(begun, epochs=1))
    train(data, begun, going_on_from(tiny_bundle, epochs=1))  # another by the same name
    with pytest.raises(TrainingError, match="other values of origin"):
        train(data, tmp_path / "out", going_on_from(begun, epochs=1))


@pytest.mark.slow
def test_a_run_that_stops_between_two_stages_adds_the_same_to_the_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is drawn then must not follow from where the stage before has left off."""
    data = build_colour_data(tmp_path / "data")
    config = TINY_CONFIG.model_copy(
        update={
            "encoder": str(build_tiny_tower(tmp_path / "tower", READING_TOWER)),
            "tower_epochs": 1,
            "tower_groups": 1,
            "lora_rank": 2,
            "epochs": 1,
        }
    )
    train(data, tmp_path / "whole", config)
    with monkeypatch.context() as patch:
        patch.setattr("clipcap.training.run.captioning_stage", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(data, tmp_path / "stopped", config)
    train(data, tmp_path / "stopped", config)
    for file in ("mapper.safetensors", "decoder/model.safetensors"):
        whole, stopped = (
            load_file(tmp_path / "whole" / file),
            load_file(tmp_path / "stopped" / file),
        )
        torch.testing.assert_close(stopped, whole, rtol=0, atol=0)


def test_only_the_main_process_writes_what_a_run_was_begun_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = read_splits(build_colour_data(tmp_path / "data"), held_out=0.1, seed=0)
    work = tmp_path / "out.work"
    work.mkdir()
    process = Mock(main_process_first=nullcontext)
    monkeypatch.setattr("clipcap.training.work_folder.PartialState", lambda: process)
    for process.is_main_process in (False, True):
        with claimed(work, TINY_CONFIG, splits, [], "origin"):
            assert (work / "run.json").exists() == process.is_main_process


def test_without_what_training_takes_it_says_what_to_install(tmp_path: Path) -> None:
    program = "import sys; sys.modules['accelerate'] = None; from clipcap.cli import main; main()"
    command = [sys.executable, "-c", program, "train", str(tmp_path), "--out", str(tmp_path / "o")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "Error: training needs accelerate: pip install 'captioning[train]'\n"


def test_a_run_without_any_stage_draws_no_curve(tmp_path: Path) -> None:
    draw_curve({}, tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()


def test_half_a_character_in_a_caption_is_refused_with_its_place(tmp_path: Path) -> None:
    """As JavaScript writes an emoji that it has cut in two."""
    line = '{"file_name": "a.png", "captions": ["a dog \\ud83d"]}'
    data = write_set(tmp_path / "data", [line])
    with pytest.raises(DataError, match=r"metadata\.jsonl, line 1: a caption holds half of a char"):
        read_splits(data, held_out=0.1, seed=0)
    with pytest.raises(DataError, match=r"metadata\.jsonl, line 1: holds half of a character"):
        read_texts(data / "metadata.jsonl")


def test_a_run_goes_on_only_as_it_was_begun(tmp_path: Path) -> None:
    data = build_colour_data(tmp_path / "data")
    tower = build_tiny_tower(tmp_path / "tower")
    config = TINY_CONFIG.model_copy(update={"encoder": str(tower), "epochs": 1})
    train(data, tmp_path / "out", config)
    with pytest.raises(TrainingError, match="learning_rate"):
        train(data, tmp_path / "out", config.model_copy(update={"learning_rate": 1e-4}))


def test_a_stage_that_has_not_begun_may_be_described_anew(tmp_path: Path) -> None:
    data = build_colour_data(tmp_path / "data")
    tower = build_tiny_tower(tmp_path / "tower")
    config = TINY_CONFIG.model_copy(update={"encoder": str(tower), "epochs": 1})
    train(data, tmp_path / "out", config)
    more = config.model_copy(update={"name": "other", "self_critical_epochs": 1})
    train(data, tmp_path / "out", more)
    history = read_bundle_config(tmp_path / "out").provenance["history"]
    assert len(history["self_critical"]) == 1
    for changed in ({"self_critical_batch": 2}, {"together_epochs": 1}, {"tower_epochs": 1}):
        with pytest.raises(TrainingError, match=next(iter(changed))):  # the last goes on from these
            train(data, tmp_path / "out", more.model_copy(update=changed))


@pytest.mark.slow
def test_training_goes_on_from_a_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    """A stranger's way: start from a bundle that exists, with data in one folder."""
    from clipcap import Captioner

    data = tmp_path / "data"
    data.mkdir()
    rows = []
    for i, colour in enumerate(["red", "green", "blue"] * 6):
        Image.new("RGB", (20 + i, 20), colour).save(data / f"{i}.png")
        rows.append({"file_name": f"{i}.png", "captions": [f"una cosa {colour}"]})
    (data / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    train(data, tmp_path / "out", going_on_from(tiny_bundle, held_out=0.2, epochs=60))

    captioner = Captioner.load(tmp_path / "out")
    [[caption]] = captioner.caption([Image.new("RGB", (25, 20), "green")])
    assert caption.text == "Una cosa green."
    config_file = (tmp_path / "out" / "bundle.json").read_text()
    assert str(tmp_path) not in config_file  # no path of the machine that trained it


@pytest.mark.slow
def test_training_reads_images_inside_shards(tiny_bundle: Path, tmp_path: Path) -> None:
    files = {}
    for split in ("train", "dev"):
        for number, colour in enumerate(("red", "green", "blue")):
            files[f"{number}.png"] = picture(colour)
            files[f"{number}.txt"] = f"all {colour}".encode()
        write_shard(tmp_path / "data" / split / "00000.tar", files)
    train(tmp_path / "data", tmp_path / "out", going_on_from(tiny_bundle, epochs=1))
    provenance = read_bundle_config(tmp_path / "out").provenance
    assert (provenance["train_images"], provenance["dev_images"]) == (3, 3)


def test_two_runs_do_not_work_in_one_folder(tmp_path: Path) -> None:
    data = build_colour_data(tmp_path / "data")
    tower = build_tiny_tower(tmp_path / "tower")
    config = TINY_CONFIG.model_copy(update={"encoder": str(tower), "epochs": 1})
    work = tmp_path / "out.work"
    work.mkdir()
    with (
        FileLock(work / "lock"),
        pytest.raises(TrainingError, match=r"out\.work: another run is at work"),
    ):
        train(data, tmp_path / "out", config)
    train(data, tmp_path / "out", config)
