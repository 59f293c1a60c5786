"""The training loop: what it does with batches, processes, full disks and runs that stall."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from clipcap import Captioner
from clipcap import bundle as bundles
from clipcap.errors import TrainingError
from clipcap.training.batches import split_batch
from clipcap.training.config import TrainingConfig
from clipcap.training.run import train
from clipcap.training.stage import Stage, run_stage
from clipcap.training.tower import share
from tests.tiny_bundle import TINY_CONFIG, build_colour_data, build_tiny_tower, going_on_from

ITEMS = 50


def line_stage(*, epochs: int = 3, score: list[float] | None = None) -> Stage:
    """Least squares through points on a line; dev scores may be dictated."""
    x = torch.linspace(-1, 1, ITEMS)[:, None]
    module = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(module.weight, 0.0)
    torch.nn.init.constant_(module.bias, 0.0)

    def loss(items: Tensor) -> Tensor:
        return (module(x[items]) - 3 * x[items] - 1).square().mean()

    scores = iter(score or range(epochs))

    def evaluate() -> dict[str, float]:
        return {"dev_loss": loss(torch.arange(ITEMS)).item(), "score": next(scores)}

    return Stage(
        name="line",
        module=module,
        lengths=[1] * ITEMS,
        loss=loss,
        evaluate=evaluate,
        judge=lambda measured: measured["score"],
        epochs=epochs,
        batch_size=8,
        learning_rate=0.1,
    )


def configure(**fields: object) -> TrainingConfig:
    return TINY_CONFIG.model_copy(update=fields)


def test_parts_of_a_batch_hold_each_item_once_over_all_processes() -> None:
    batch = list(range(11))
    parts = [
        part for rank in range(3) for part in split_batch(batch, process=rank, processes=3, parts=2)
    ]
    assert sorted(item for part in parts for item in part) == batch
    assert split_batch([4], process=1, processes=2, parts=2) == []


def test_a_batch_in_parts_trains_as_the_whole_of_it(tmp_path: Path) -> None:
    weights = []
    for parts in (1, 3):
        stage = line_stage()
        history = run_stage(stage, configure(accumulation=parts), tmp_path / str(parts))
        weights.append(stage.module.state_dict())
        assert history[-1]["train_loss"] < history[0]["train_loss"]
    torch.testing.assert_close(weights[0], weights[1])


def test_a_stage_ends_when_nothing_has_got_better_and_keeps_its_best(tmp_path: Path) -> None:
    stage = line_stage(epochs=9, score=[1, 5, 2, 3, 4, 4, 4, 4, 4])
    history = run_stage(stage, configure(patience=3), tmp_path)
    assert len(history) == 5
    stored = torch.load(tmp_path / "line" / "best.pt", weights_only=True)
    torch.testing.assert_close(stage.module.state_dict(), stored)
    again = line_stage(epochs=9, score=[9])  # it does not go on
    assert run_stage(again, configure(patience=3), tmp_path) == history


@pytest.mark.slow
def test_the_average_of_the_weights_is_measured_and_kept(tmp_path: Path) -> None:
    decay, seen = 0.8, []
    plain = line_stage(epochs=1)
    step = plain.module.register_forward_pre_hook(
        lambda module, _: seen.append(module.weight.item())  # after each step, the next one's
    )
    run_stage(plain, configure(), tmp_path / "plain")
    step.remove()
    by_hand = 0.0  # what the weights begin with
    for number, weight in enumerate([*seen[1:7], plain.module.weight.item()]):
        by_hand += (1 - min(decay, (1 + number) / (10 + number))) * (weight - by_hand)

    averaged = line_stage(epochs=1)
    history = run_stage(averaged, configure(average=decay), tmp_path / "averaged")
    assert averaged.module.weight.item() == pytest.approx(by_hand, abs=1e-5)
    x = torch.linspace(-1, 1, ITEMS)[:, None]
    measured = (averaged.module(x) - 3 * x - 1).square().mean().item()
    assert history[0]["dev_loss"] == pytest.approx(measured, abs=1e-5)


def test_a_full_disk_is_said_and_what_was_written_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_stage(line_stage(epochs=1), configure(), tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "line").iterdir()}
    # Every write to this device fails as on a full disk.
    monkeypatch.setattr("clipcap.training.checkpoint.PART_SUFFIX", ".full")
    for name in ("checkpoint.full", "best.full"):
        (tmp_path / "line" / name).symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"(?s)cannot be written.*make room"):
        run_stage(line_stage(epochs=2), configure(), tmp_path)
    after = {
        path.name: path.read_bytes()
        for path in (tmp_path / "line").iterdir()
        if not path.is_symlink()
    }
    assert after == before


def test_losses_and_scores_are_written_for_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_stage(line_stage(), configure(tensorboard=True), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard" / "line"))
    events.Reload()
    assert len(events.Scalars("loss")) == 3 * 7
    assert [event.value for event in events.Scalars("score")] == [0, 1, 2]


LAUNCHERS = {
    "one": [sys.executable],
    "two": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"],
}
TELLING_APART = """
import sys
from pathlib import Path
import torch
from accelerate import PartialState
from torch import nn
from clipcap.training.stage import Stage, run_stage
from clipcap.training.tower import ContrastiveModel
from tests.tiny_bundle import TINY_CONFIG

out = Path(sys.argv[1])
PartialState(cpu=True)
torch.manual_seed(0)
shown, told = torch.randn(10, 4), torch.randn(10, 2, 4)
clip = nn.ModuleDict({"visual": nn.Linear(4, 3), "text": nn.Linear(4, 3)})
clip.logit_scale = nn.Parameter(torch.tensor(1.0))
module = ContrastiveModel(clip)

def loss(items):
    texts = nn.functional.normalize(clip.text(told[items].flatten(0, 1)), dim=-1)
    return module.loss(clip.visual(shown[items]), texts)

stage = Stage(
    name="tower", module=module, lengths=[1] * 10, loss=loss, evaluate=lambda: {"dev_loss": 0.0},
    judge=lambda measured: 0.0, epochs=3, batch_size=5, learning_rate=0.05, whole=True,
)
config = TINY_CONFIG.model_copy(update={"accumulation": 2, "weight_decay": 0.0})
run_stage(stage, config, out)
if PartialState().is_main_process:
    state = {**module.state_dict(), "processes": torch.tensor(PartialState().num_processes)}
    torch.save(state, out / "weights.pt")
"""


@pytest.mark.slow
def test_images_are_told_from_those_of_all_processes(tmp_path: Path) -> None:
    """Of batches of five one process has three, the other two."""
    script = tmp_path / "telling_apart.py"
    script.write_text(TELLING_APART)
    found = {}
    for name, launcher in LAUNCHERS.items():
        command = [*launcher, str(script), str(tmp_path / name)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
        assert done.returncode == 0, done.stderr[-3000:]
        found[name] = torch.load(tmp_path / name / "weights.pt", weights_only=True)
    assert [weights.pop("processes") for weights in found.values()] == [1, 2]
    torch.testing.assert_close(found["two"], found["one"], rtol=1e-4, atol=1e-5)


def test_a_mean_over_more_images_counts_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five images one process has three: averaged over both, each counts for a fifth."""
    assert share(3) == 1
    monkeypatch.setattr("clipcap.training.tower.PartialState", lambda: Mock(num_processes=2))
    monkeypatch.setattr("clipcap.training.tower.gather_object", lambda own: [3, 2])
    assert [share(3) / 3 / 2, share(2) / 2 / 2] == pytest.approx([1 / 5, 1 / 5])


def test_a_batch_has_an_image_for_each_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    several = Mock(process_index=0, is_main_process=True, device=torch.device("cpu"))
    monkeypatch.setattr("clipcap.training.stage.PartialState", lambda: several)
    several.num_processes = 9
    with pytest.raises(TrainingError, match="an item for each process"):
        run_stage(replace(line_stage(), whole=True), configure(), tmp_path / "nine")
    several.num_processes = 3  # of 50 in batches of 8 two are left over
    stage = line_stage(epochs=1)
    seen: list[int] = []
    loss = stage.loss
    stage.loss = lambda items: (seen.append(len(items)), loss(items))[1]
    run_stage(replace(stage, whole=True), configure(), tmp_path / "three")
    assert seen == [3] * 6


@pytest.mark.slow
@pytest.mark.parametrize("lora_rank", [0, 2])
def test_two_processes_train_what_one_would(lora_rank: int, tmp_path: Path) -> None:
    """Without dropout and drawn views, a step over two processes is a step over one. What is
    added to the decoder is the same in each, wherever the stage before has left them."""
    text = tmp_path / "text.jsonl"
    text.write_text('{"captions": ["a dog runs", "a red dog"]}\n')
    data = build_colour_data(tmp_path / "data")
    tower = build_tiny_tower(tmp_path / "tower")
    options = {
        **TINY_CONFIG.model_dump(
            mode="json", exclude={"decoding", "start_from"}, exclude_none=True
        ),
        "start-from": "",
        "encoder": tower,
        "epochs": 3,
        "learning_rate": 1e-3,
        "lora_rank": lora_rank,
        "pretrain_text": text,
    }
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    for out, launcher in LAUNCHERS.items():
        command = [*launcher, "-m", "clipcap", "train", str(data), *arguments]
        command += ["--out", str(tmp_path / out)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr[-3000:]
    for file in ("mapper.safetensors", "decoder/model.safetensors"):
        one, two = load_file(tmp_path / "one" / file), load_file(tmp_path / "two" / file)
        for key, tensor in one.items():
            torch.testing.assert_close(two[key], tensor, rtol=0.02, atol=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("regime", [{"freeze_decoder": True}, {"lora_rank": 2}])
def test_a_decoder_may_stay_as_it_is_or_learn_by_low_rank_additions(
    regime: dict[str, object], tiny_bundle: Path, tmp_path: Path
) -> None:
    data = build_colour_data(tmp_path / "data")
    config = going_on_from(tiny_bundle, epochs=2, learning_rate=1e-3, **regime)
    train(data, tmp_path / "out", config)

    before = bundles.load(tiny_bundle).decoder.model.state_dict()
    after = bundles.load(tmp_path / "out").decoder.model.state_dict()
    assert before.keys() == after.keys()  # a plain GPT-2
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    if "freeze_decoder" in regime:
        assert not changed
    else:
        assert changed == {
            f"transformer.h.{layer}.{name}.weight"
            for layer in range(2)
            for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
        }
    [[caption]] = Captioner.load(tmp_path / "out").caption([Image.new("RGB", (25, 20), "green")])
    assert "green" in caption.text


@pytest.mark.slow
def test_a_transformer_mapper_learns_to_caption(tiny_bundle: Path, tmp_path: Path) -> None:
    data = build_colour_data(tmp_path / "data")
    tower = build_tiny_tower(tmp_path / "tower")
    config = configure(
        encoder=str(tower), mapper="transformer", clip_length=3, mapper_layers=2, mapper_heads=2
    )
    train(data, tmp_path / "out", config)
    mapper = bundles.load(tmp_path / "out").config.mapper
    assert (mapper.kind, mapper.layers, mapper.heads) == ("transformer", 2, 2)
    [[caption]] = Captioner.load(tmp_path / "out").caption([Image.new("RGB", (25, 20), "green")])
    assert "green" in caption.text


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path: Path) -> None:
    data = build_colour_data(tmp_path / "data")
    tower = build_tiny_tower(tmp_path / "tower")
    config = configure(encoder=str(tower), mapper="transformer", mapper_heads=5)
    with pytest.raises(TrainingError, match="mapper_heads"):
        train(data, tmp_path / "out", config)


def test_a_curve_of_every_stage_lies_beside_the_bundle(tmp_path: Path) -> None:
    data = build_colour_data(tmp_path / "data")
    tower = build_tiny_tower(tmp_path / "tower")
    train(data, tmp_path / "out", configure(encoder=str(tower), epochs=2, self_critical_epochs=1))
    with Image.open(tmp_path / "out.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert picture.height > 500  # two stages
