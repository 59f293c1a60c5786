from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from clipcap import encoder
from clipcap.encoder import CONFIG_FILE, WEIGHTS_FILE

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))
import average_towers


def test_each_weight_is_the_mean_and_the_model_loads(tmp_path: Path, tiny_bundle: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    shutil.copytree(tiny_bundle / "clip", one)
    other.mkdir()
    shutil.copy(one / CONFIG_FILE, other)
    stored = load_file(one / WEIGHTS_FILE)
    weights = {k: t.float() if t.is_floating_point() else t for k, t in stored.items()}
    save_file(weights, one / WEIGHTS_FILE)
    moved = {k: t + 1 if t.is_floating_point() else t for k, t in weights.items()}
    save_file(moved, other / WEIGHTS_FILE)
    average_towers.average(tmp_path / "out", [one, other])
    for key, tensor in load_file(tmp_path / "out" / WEIGHTS_FILE).items():
        wanted = weights[key] + 0.5 if tensor.is_floating_point() else weights[key]
        torch.testing.assert_close(tensor, wanted)
    encoder.load_folder(tmp_path / "out")
