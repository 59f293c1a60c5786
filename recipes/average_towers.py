"""Makes one CLIP model of several that were tuned from the same weights: the mean of each weight.
What they have in common stays, what one of them learned by heart of its photographs becomes less.

    python recipes/average_towers.py OUT_FOLDER FOLDER FOLDER [...]

Source: Wortsman et al., "Model soups: averaging weights of multiple fine-tuned models improves
accuracy without increasing inference time", arXiv 2203.05482.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from clipcap.encoder import CONFIG_FILE, WEIGHTS_FILE


def average(out: Path, folders: Sequence[Path]) -> None:
    """The last folder's configuration, and whatever is no number with a fraction, is kept."""
    towers = [load_file(folder / WEIGHTS_FILE) for folder in folders]
    averaged = dict(towers[-1])
    for key, tensor in averaged.items():
        if tensor.is_floating_point():
            mean = torch.stack([tower[key].float() for tower in towers]).mean(dim=0)
            averaged[key] = mean.to(tensor.dtype)
    out.mkdir(parents=True, exist_ok=True)
    save_file(averaged, out / WEIGHTS_FILE)
    shutil.copy(folders[-1] / CONFIG_FILE, out / CONFIG_FILE)


if __name__ == "__main__":
    average(Path(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]])
