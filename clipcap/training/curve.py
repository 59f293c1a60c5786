"""A picture of a run: losses and scores of each stage, epoch by epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

SIZE_INCHES = (4.5, 3.2)
"""Of each panel."""


def draw_curve(history: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Write a PNG: a row for each stage, its losses on the left and its scores on the right; none
    where there was no stage."""
    if not history:
        return
    width, height = SIZE_INCHES
    figure = Figure(figsize=(2 * width, height * len(history)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(history), 2, squeeze=False)
    for (stage, rows), (left, right) in zip(history.items(), panels, strict=True):
        epochs = range(1, len(rows) + 1)
        for name in rows[0]:
            panel = left if name.endswith("loss") else right
            panel.plot(epochs, [row[name] for row in rows], marker="o", label=name)
        for panel, title in ((left, "loss"), (right, "scores on dev")):
            panel.set_title(f"{stage.replace('_', ' ')}: {title}")
            panel.set_xlabel("epoch")
            panel.xaxis.get_major_locator().set_params(integer=True)
            if panel.lines:
                panel.legend()
    figure.savefig(path)
