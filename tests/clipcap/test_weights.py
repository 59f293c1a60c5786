from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from clipcap.weights import read_weights, write_weights

WITHOUT_ROOM = """
import resource, sys
from pathlib import Path
import torch
from clipcap.errors import ClipCapError
from clipcap.weights import write_weights

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    write_weights({"one": torch.ones(100_000)}, Path(sys.argv[1]))
except ClipCapError as error:
    print(error)
"""


def test_without_room_it_says_so_and_what_was_there_stands(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_weights({"one": torch.zeros(10)}, path)
    command = [sys.executable, "-c", WITHOUT_ROOM, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{path}: cannot be written: ")
    assert read_weights(path)["one"].tolist() == [0.0] * 10
