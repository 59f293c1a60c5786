"""Memory that is kept is not cleared again by the system."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PAGES_OF_A_ROUND = (100 << 20) // 4096
FAULTS = """
import resource, torch
{before}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(12):
    torch.ones(25 << 20)
before = faults()
for _ in range(5):
    torch.ones(25 << 20)
print((faults() - before) // 5)
"""
KEEP = "from clipcap.allocation import keep_freed_memory; keep_freed_memory()"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
@pytest.mark.parametrize(
    ("before", "variables", "kept"),
    [
        (KEEP, {}, True),
        ("", {}, False),
        (KEEP, {"MALLOC_TRIM_THRESHOLD_": "131072"}, False),  # somebody has said otherwise
    ],
)
def test_freed_memory_is_kept(before: str, variables: dict[str, str], kept: bool) -> None:
    inherited = {name: v for name, v in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(before=before)],
        # Or a page may be a large one, and the faults few anyway.
        env={**inherited, **variables, "THP_MEM_ALLOC_ENABLE": "0"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    faults = int(done.stdout)
    assert (faults < PAGES_OF_A_ROUND / 10) == kept
