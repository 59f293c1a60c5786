"""Losses and scores for TensorBoard, where somebody asked for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from clipcap.errors import TrainingError


def scalar_writer(folder: Path) -> Callable[[Mapping[str, float], int], None]:
    """A function that takes measures and the step they were taken at.

    Raises: TrainingError when TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError("tensorboard: pip install tensorboard first") from error
    writer = SummaryWriter(str(folder))

    def write(measures: Mapping[str, float], step: int) -> None:
        for name, value in measures.items():
            writer.add_scalar(name, value, step)

    return write
