"""docs/decoding.md does not lie: its Python is run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

GUIDE = (Path(__file__).parents[2] / "docs" / "decoding.md").read_text()


@pytest.mark.slow
def test_its_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", GUIDE, flags=re.DOTALL)
    exec(code, {"image": Image.new("RGB", (320, 240), "green")})  # noqa: S102 (our own guide)
    lines = capsys.readouterr().out.splitlines()
    assert len(set(lines)) == len(lines) == 3
    assert all(len(line.split()) <= 10 + 2 for line in lines)  # the words and two scores
