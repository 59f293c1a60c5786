"""The training loop: one stage of a run, from its first step to its best weights, on one
process or several.

What is drawn at random follows from seed, stage, step and process alone, and a checkpoint holds
the rest (weights, optimiser, position): a run that is killed and started again ends with the
same numbers as one that was not.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, reduce
from torch import Tensor, nn
from tqdm import tqdm

from clipcap.errors import TrainingError
from clipcap.training.average import WeightAverage
from clipcap.training.batches import make_batches, split_batch
from clipcap.training.checkpoint import Checkpoints
from clipcap.training.config import TrainingConfig
from clipcap.training.tensorboard import scalar_writer


@dataclass
class Stage:
    """What one stage trains, on what, and how it is judged."""

    name: str
    module: nn.Module
    lengths: Sequence[int]
    """Tokens of each training item, for batching."""
    loss: Callable[[Tensor], Tensor]
    """Item indices `(B,)` → mean loss."""
    evaluate: Callable[[], dict[str, float]]
    """Measured after each epoch."""
    judge: Callable[[dict[str, float]], float]
    """The measure that the best epoch has most of."""
    epochs: int
    batch_size: int
    learning_rate: float
    rates: dict[float, list[nn.Parameter]] = field(default_factory=dict)
    """Parameters with a learning rate of their own."""
    whole: bool = False
    """Whether its loss tells the items of a batch from each other, in all processes at once: a
    batch is not taken in parts then, and each process must have a share of it."""


def run_stage(stage: Stage, config: TrainingConfig, work: Path) -> list[dict[str, float]]:
    """Train, or go on training, and leave the module with its best weights.

    Returns what was measured after each epoch.
    Raises: TrainingError when the loss is no longer a number, the disk is full, or a batch has
    not enough items for all processes.
    """
    return _Loop(stage, config, work).run()


class _Loop:
    def __init__(self, stage: Stage, config: TrainingConfig, work: Path) -> None:
        self._stage = stage
        self._config = config
        self._processes = PartialState()
        self._checkpoints = Checkpoints(work / stage.name)
        self._optimizer = _optimizer(stage, config.weight_decay)
        self._average = WeightAverage(stage.module, config.average) if config.average else None
        self._progress = self._checkpoints.resume(stage.module, self._optimizer, self._average)
        self._least = self._processes.num_processes if stage.whole else 1
        if min(stage.batch_size, len(stage.lengths)) < self._least:
            raise TrainingError(f"{stage.name}: a batch is to have an item for each process")
        full, rest = divmod(len(stage.lengths), stage.batch_size)
        self._per_epoch = full + (rest >= self._least)
        self._total = self._per_epoch * stage.epochs
        self._write = self._scalar_writer(work)

    def _scalar_writer(self, work: Path) -> Callable[[Mapping[str, float], int], None]:
        if not self._config.tensorboard or not self._processes.is_main_process:
            return lambda measures, step: None
        return scalar_writer(work / "tensorboard" / self._stage.name)

    def run(self) -> list[dict[str, float]]:
        progress = self._progress
        with tqdm(
            total=self._total,
            initial=self._step_number,
            desc=self._stage.name,
            unit="step",
            disable=not self._processes.is_main_process,
        ) as bar:
            while progress.epoch < self._stage.epochs and not self._has_stalled():
                self._epoch(bar)
        self._checkpoints.load_best(self._stage.module)
        self._stage.module.eval()
        return progress.history

    @property
    def _step_number(self) -> int:
        return self._progress.epoch * self._per_epoch + self._progress.step

    def _has_stalled(self) -> bool:
        since = self._progress.epoch - self._progress.best_epoch
        return bool(self._config.patience) and since >= self._config.patience

    def _epoch(self, bar: tqdm[Any]) -> None:
        stage, progress = self._stage, self._progress
        batches = make_batches(stage.lengths, stage.batch_size, self._config.seed, progress.epoch)
        enough = [batch for batch in batches if len(batch) >= self._least]
        stage.module.train()
        for batch in enough[progress.step :]:
            value = self._step(batch)
            progress.loss += value
            progress.step += 1
            bar.update()
            bar.set_postfix(epoch=progress.epoch + 1, loss=f"{value:.3f}")
            if progress.step % self._config.checkpoint_steps == 0:
                self._save()
        self._end_epoch(bar)
        self._save()

    def _step(self, batch: list[int]) -> float:
        """One step of the optimiser. Returns the loss that this process saw."""
        stage, processes, number = self._stage, self._processes, self._step_number
        rank, count = processes.process_index, processes.num_processes
        torch.manual_seed(zlib.crc32(f"{self._config.seed} {stage.name} {number} {rank}".encode()))
        scale = learning_rate(number, self._total, self._config)
        for group in self._optimizer.param_groups:
            group["lr"] = scale * group["peak"]
        self._optimizer.zero_grad(set_to_none=True)
        value = 0.0
        parts = 1 if stage.whole else self._config.accumulation
        for part in split_batch(batch, process=rank, processes=count, parts=parts):
            share = 1.0 if stage.whole else len(part) * count / len(batch)
            with torch.autocast(processes.device.type, torch.bfloat16, enabled=self._config.bf16):
                loss = stage.loss(torch.tensor(part)) * share
            loss.backward()  # type: ignore[no-untyped-call]
            value += loss.item()
        parameters = [p for p in stage.module.parameters() if p.requires_grad]
        _average_gradients(parameters, count)
        norm = nn.utils.clip_grad_norm_(parameters, self._config.clip_gradients)
        if not math.isfinite(norm):  # the same in all processes
            raise TrainingError(
                f"{stage.name}, step {number}: the loss is {value}, its gradient {norm.item()}; "
                "try a lower learning_rate"
            )
        self._optimizer.step()
        if self._average:
            self._average.update(number)
        self._write({"loss": value, "learning_rate": scale * stage.learning_rate}, number)
        return value

    def _end_epoch(self, bar: tqdm[Any]) -> None:
        with self._judged_weights():
            self._measure(bar)

    def _judged_weights(self) -> AbstractContextManager[None]:
        return self._average.in_place() if self._average else nullcontext()

    def _measure(self, bar: tqdm[Any]) -> None:
        stage, progress = self._stage, self._progress
        stage.module.eval()
        measured = [stage.evaluate() if self._processes.is_main_process else {}]
        broadcast_object_list(measured)
        if not math.isfinite(measured[0]["dev_loss"]):
            raise TrainingError(
                f"{stage.name}: the loss on dev is {measured[0]['dev_loss']}; "
                "try a lower learning_rate"
            )
        row = {"train_loss": progress.loss / self._per_epoch, **measured[0]}
        progress.history.append(row)
        progress.epoch, progress.step, progress.loss = progress.epoch + 1, 0, 0.0
        words = "  ".join(f"{name} {value:.3f}" for name, value in row.items())
        bar.write(f"{stage.name} epoch {progress.epoch}: {words}")
        self._write(row, self._step_number)
        if stage.judge(row) > progress.best:
            progress.best, progress.best_epoch = stage.judge(row), progress.epoch
            if self._processes.is_main_process:
                self._checkpoints.save_best(stage.module)

    def _save(self) -> None:
        if self._processes.is_main_process:
            self._checkpoints.save(
                self._stage.module, self._optimizer, self._progress, self._average
            )
        self._processes.wait_for_everyone()


def learning_rate(step: int, total: int, config: TrainingConfig) -> float:
    """Linear warmup to 1, then a cosine to zero."""
    warmup = max(1, round(total * config.warmup))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def _optimizer(stage: Stage, weight_decay: float) -> torch.optim.AdamW:
    """Weight decay on matrices only, as is usual for GPT-2."""
    own = {id(p): rate for rate, parameters in stage.rates.items() for p in parameters}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in stage.module.parameters():
        if parameter.requires_grad:
            rate = own.get(id(parameter), stage.learning_rate)
            decay = weight_decay if parameter.ndim >= 2 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ],
        fused=True,
    )


def _average_gradients(parameters: Sequence[nn.Parameter], processes: int) -> None:
    """Over all processes, in one message. A process without items counts as zeros."""
    if processes == 1:
        return
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = reduce(torch.cat([gradient.flatten() for gradient in gradients]), "mean")
    for parameter, part in zip(
        parameters, flat.split([p.numel() for p in parameters]), strict=True
    ):
        parameter.grad = part.view_as(parameter)
