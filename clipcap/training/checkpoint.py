"""What a stage has done so far, on disk: whole or not at all, however the run ends."""

from __future__ import annotations

import errno
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clipcap.errors import TrainingError
from clipcap.training.average import WeightAverage

PART_SUFFIX = ".part"


@dataclass
class Progress:
    """Where a stage is, and what it has measured."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    """Summed over the steps of this epoch."""
    history: list[dict[str, float]] = field(default_factory=list)
    best: float = -math.inf
    best_epoch: int = 0


class Checkpoints:
    """The folder of one stage: where it is, and its best weights."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._current = folder / "checkpoint.pt"
        self._best = folder / "best.pt"

    def save(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        average: WeightAverage | None = None,
    ) -> None:
        state = {
            "module": module.state_dict(),
            "optimizer": optimizer.state_dict(),
            "progress": asdict(progress),
            "average": average and average.state,
        }
        _save(state, self._current)

    def resume(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: WeightAverage | None = None,
    ) -> Progress:
        """Where the stage was, or its beginning."""
        if not self._current.exists():
            return Progress()
        state = torch.load(self._current, weights_only=True, map_location="cpu")
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        if average:
            average.load(state["average"])
        return Progress(**state["progress"])

    def save_best(self, module: nn.Module) -> None:
        _save(module.state_dict(), self._best)

    def load_best(self, module: nn.Module) -> None:
        module.load_state_dict(torch.load(self._best, weights_only=True, map_location="cpu"))


def _save(state: dict[str, Any], path: Path) -> None:
    """A kill in the middle leaves the file that was there, and so does a full disk.

    Raises: TrainingError.
    """
    part = path.with_suffix(PART_SUFFIX)
    try:
        torch.save(state, part)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # torch's own writer raises RuntimeError
        part.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno != errno.ENOSPC:
            raise
        raise TrainingError(
            f"{path}: cannot be written: {error}. What was written before stands: make room, "
            "and start the run again to go on"
        ) from error
