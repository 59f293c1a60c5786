"""The training loop: one stage of a run, from its first step to its best weights.

A checkpoint holds all that decides what comes next (weights, optimiser, random state,
position), and the order of the data follows from seed and epoch alone: a run that is killed
and started again ends with the same numbers as one that was not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from clipcap.errors import TrainingError
from clipcap.training.config import TrainingConfig

SORTED_BATCHES = 16
"""Captions of like length are batched together within a window of this many batches."""


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


@dataclass
class Progress:
    """Where a stage is, and what it has measured."""

    epoch: int = 0
    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: float = -math.inf


def run_stage(stage: Stage, config: TrainingConfig, work: Path) -> list[dict[str, float]]:
    """Train, or go on training, and leave the module with its best weights.

    Returns what was measured after each epoch.
    Raises: TrainingError when the loss is no longer a number.
    """
    folder = work / stage.name
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = _optimizer(stage, config.weight_decay)
    progress = _resume(folder / "checkpoint.pt", stage.module, optimizer, config.seed)
    per_epoch = math.ceil(len(stage.lengths) / stage.batch_size)
    total = per_epoch * stage.epochs
    done = progress.epoch * per_epoch + progress.step
    with tqdm(total=total, initial=done, desc=stage.name, unit="step") as bar:
        for epoch in range(progress.epoch, stage.epochs):
            batches = make_batches(stage.lengths, stage.batch_size, config.seed, epoch)
            stage.module.train()
            for step in range(progress.step, per_epoch):
                rate = learning_rate(epoch * per_epoch + step, total, config)
                value = _step(stage, optimizer, batches[step], rate, config)
                bar.update()
                bar.set_postfix(epoch=epoch + 1, loss=f"{value:.3f}")
                progress.step = step + 1
                if progress.step % config.checkpoint_steps == 0 and progress.step < per_epoch:
                    _checkpoint(folder, stage.module, optimizer, progress)
            _end_epoch(stage, progress, folder, bar)
            _checkpoint(folder, stage.module, optimizer, progress)
    best = folder / "best.pt"
    stage.module.load_state_dict(torch.load(best, weights_only=True, map_location="cpu"))
    stage.module.eval()
    return progress.history


def make_batches(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Every item once, shuffled by seed and epoch, like lengths together to spare padding."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    window = batch_size * SORTED_BATCHES
    batches = []
    for start in range(0, len(order), window):
        near = sorted(order[start : start + window], key=lambda item: lengths[item])
        batches += [near[i : i + batch_size] for i in range(0, len(near), batch_size)]
    shuffled = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[i] for i in shuffled]


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


def _step(
    stage: Stage,
    optimizer: torch.optim.Optimizer,
    batch: list[int],
    rate: float,
    config: TrainingConfig,
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["peak"]
    device = next(stage.module.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=config.bf16):
        loss = stage.loss(torch.tensor(batch))
    value = loss.item()
    _require_finite(stage, value)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(stage.module.parameters(), config.clip_gradients)
    optimizer.step()
    return value


def _require_finite(stage: Stage, loss: float) -> None:
    if not math.isfinite(loss):
        raise TrainingError(f"{stage.name}: the loss is {loss}; try a lower learning_rate")


def _end_epoch(stage: Stage, progress: Progress, folder: Path, bar: tqdm[Any]) -> None:
    stage.module.eval()
    measured = stage.evaluate()
    _require_finite(stage, measured["dev_loss"])
    progress.history.append(measured)
    progress.epoch, progress.step = progress.epoch + 1, 0
    words = "  ".join(f"{name} {value:.3f}" for name, value in measured.items())
    bar.write(f"{stage.name} epoch {progress.epoch}: {words}")
    if stage.judge(measured) > progress.best:
        progress.best = stage.judge(measured)
        _save(stage.module.state_dict(), folder / "best.pt")


def _checkpoint(
    folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    state = {
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "progress": vars(progress),
    }
    if torch.cuda.is_available():
        state["random_cuda"] = torch.cuda.get_rng_state()
    _save(state, folder / "checkpoint.pt")


def _save(state: dict[str, Any], path: Path) -> None:
    """Whole or not at all: a kill in the middle leaves the file that was there."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    os.replace(part, path)


def _resume(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> Progress:
    if not path.exists():
        torch.manual_seed(seed)
        return Progress()
    state = torch.load(path, weights_only=True, map_location="cpu")  # from a GPU, perhaps
    module.load_state_dict(state["module"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    if "random_cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["random_cuda"])
    return Progress(**state["progress"])
