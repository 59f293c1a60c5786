"""`make audit` says what was checked, with a stand-in for pip-audit, which needs its database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[2] / "scripts" / "audit.py"
GOOD = {"name": "good", "version": "1", "vulns": []}
BAD = {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "code", "words"),
    [
        ([GOOD], 0, "1 packages checked, 0 known vulnerabilities"),
        ([GOOD, BAD], 1, "bad 2: CVE-1, mended in 3"),
        ([GOOD, UNKNOWN], 0, "1 not in the database: unknown"),
        ([UNKNOWN], 2, "Nothing was checked"),
        (None, 2, "cannot be resolved"),
    ],
    ids=["clean", "a flaw", "one unknown", "a mirror", "no network"],
)
def test_it_says_what_was_checked(
    tmp_path: Path, packages: list[object] | None, code: int, words: str
) -> None:
    if packages is None:
        stand_in = "import sys\nsys.exit('ConnectionError: the name cannot be resolved')"
    else:
        stand_in = f"print({json.dumps(json.dumps({'dependencies': packages}))})"
    (tmp_path / "pip_audit.py").write_text(stand_in)
    done = subprocess.run(
        [sys.executable, AUDIT],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code
    assert words in done.stdout + done.stderr
