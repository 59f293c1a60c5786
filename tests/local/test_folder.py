"""One service owns a data folder, and says in one line why it cannot."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from captioning.local.errors import StartError
from captioning.local.folder import DataFolder


def test_it_makes_a_private_folder(tmp_path: Path) -> None:
    folder = DataFolder(tmp_path / "new" / "data")
    with folder.owned():
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
        assert folder.log("web").parent.is_dir()


def test_it_leaves_the_mode_of_a_folder_that_was_there(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    with DataFolder(tmp_path).owned():
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


def test_a_second_owner_is_told_who_has_it(tmp_path: Path) -> None:
    with (
        DataFolder(tmp_path).owned(),
        pytest.raises(StartError, match=rf"already running .*process {os.getpid()}"),
        DataFolder(tmp_path).owned(),
    ):
        pass


def test_it_can_be_owned_again(tmp_path: Path) -> None:
    for _ in range(2):
        with DataFolder(tmp_path).owned():
            assert DataFolder(tmp_path).lock.read_text() == f"{os.getpid()}\n"


def test_a_killed_owner_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path\n"
        "from captioning.local.folder import DataFolder\n"
        "with DataFolder(Path(sys.argv[1])).owned(): print(flush=True); time.sleep(600)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    with owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        with pytest.raises(StartError, match=f"process {owner.pid}"), DataFolder(tmp_path).owned():
            pass
        owner.kill()
    with DataFolder(tmp_path).owned():
        pass


def test_a_file_in_its_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(StartError) as caught, DataFolder(tmp_path / "data").owned():
        pass
    assert str(caught.value) == f"The data folder cannot be used: {tmp_path}/data: File exists."


def test_a_folder_that_cannot_be_made_is_said() -> None:
    with (
        pytest.raises(StartError, match=r"The data folder cannot be used: /proc/nothing: .*\."),
        DataFolder(Path("/proc/nothing")).owned(),
    ):
        pass


def test_a_folder_without_leave_to_write_is_said(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path\n"
        "from captioning.local.folder import DataFolder\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try:\n"
        "    with DataFolder(Path(sys.argv[1])).owned(): pass\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    answer = subprocess.run(
        [sys.executable, "-c", code, str(closed)], capture_output=True, text=True, check=True
    )
    assert answer.stdout.startswith("StartError The data folder cannot be used: ")
    assert answer.stdout.endswith(": Permission denied.\n")
