"""A container without Docker: the files that its image copies, the packages that its image
installs and nothing else, its environment, its command; paths, ports and hosts are mapped."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.requirements import requirements
from tests.deployment.files import ROOT, Stage, outside

# Runs before anything else in the container's processes.
CONFINE = """
import os, pathlib, sys
from importlib.machinery import PathFinder
ours = [folder for folder in sys.path if (pathlib.Path(folder) / "pyproject.toml").exists()]
sys.path[:] = [folder for folder in sys.path if folder not in ours]
absent = set(os.environ["NOT_INSTALLED"].split(","))
class Installed(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = Installed
"""


def installed(*extras: str) -> set[str]:
    """The names of all packages that pip would install for the extras, by what those on this
    machine say of themselves."""
    found: set[str] = set()
    left = [Requirement(line) for line in requirements(*extras)]
    while left:
        requirement = left.pop()
        name = canonicalize_name(requirement.name)
        environments = [{"extra": extra} for extra in (*requirement.extras, "")]
        if name in found and not requirement.extras:
            continue
        found.add(name)
        try:
            needed = [Requirement(line) for line in requires(requirement.name) or ()]
        except PackageNotFoundError:  # for another platform
            continue
        left += [
            each
            for each in needed
            if each.marker is None or any(each.marker.evaluate(env) for env in environments)
        ]
    return found


def not_installed(packages: set[str]) -> set[str]:
    """Top-level modules of this machine that the image would not have."""
    return {
        module
        for module, distributions in packages_distributions().items()
        if not packages & {canonicalize_name(name) for name in distributions}
    }


class Container:
    """One image in a folder. Those that share a folder share the volume at /data."""

    def __init__(
        self, stage: Stage, folder: Path, *, extras: tuple[str, ...], mapped: Mapping[str, str]
    ) -> None:
        self._stage = stage
        self._folder = folder / stage.name
        self._mapped = {
            "/app": str(self._folder / "app"),
            "/data": str(folder / "data"),
            "0.0.0.0": "127.0.0.1",  # noqa: S104
            **mapped,
        }
        (folder / "data").mkdir(exist_ok=True)
        for source, place in stage.copies.items():
            shutil.copytree(ROOT / source, self.place(place), dirs_exist_ok=True)
        (self._folder / "app" / "sitecustomize.py").write_text(CONFINE)
        self._absent = not_installed(installed(*extras))

    def place(self, value: str) -> str:
        """What a path, port or host of the container is called here."""
        pattern = "|".join(sorted(map(re.escape, self._mapped), key=len, reverse=True))
        return re.sub(pattern, lambda match: self._mapped[match[0]], value)

    def environment(self, environment: Mapping[str, str]) -> dict[str, str]:
        inside = self._stage.environment | dict(environment)
        mapped = {name: self.place(value) for name, value in inside.items()}
        return {**outside(), **mapped, "NOT_INSTALLED": ",".join(self._absent)}

    def start(
        self, command: list[str], environment: Mapping[str, str], log: Path
    ) -> subprocess.Popen[str]:
        assert self._stage.last("ENTRYPOINT") == '["captioning"]'
        with log.open("a") as output:
            return subprocess.Popen(
                [Path(sys.executable).with_name("captioning"), *command],
                env=self.environment(environment),
                cwd=self.place(self._stage.last("WORKDIR")),
                stdout=output,
                stderr=output,
                text=True,
            )

    def healthy(self, environment: Mapping[str, str]) -> bool:
        python, *rest = (self.place(word) for word in self._stage.health_command)
        assert python == "python"
        done = subprocess.run(
            [sys.executable, *rest],
            env=self.environment(environment),
            capture_output=True,
            timeout=60,
        )
        return done.returncode == 0


def stop(process: subprocess.Popen[str]) -> int:
    process.send_signal(signal.SIGTERM)
    return process.wait(120)
