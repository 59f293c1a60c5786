"""The deployment's files as data, and their containers as processes of this machine."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]


@dataclass
class Stage:
    """One `FROM` of the Dockerfile, with what it inherits."""

    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, keyword: str) -> list[str]:
        return [rest for word, rest in self.instructions if word == keyword]

    def last(self, keyword: str) -> str:
        return self.all(keyword)[-1]

    @property
    def environment(self) -> dict[str, str]:
        words = [word for rest in self.all("ENV") for word in shlex.split(rest)]
        return dict(word.split("=", 1) for word in words)

    @property
    def copies(self) -> dict[str, str]:
        """Source in the repository → place in the image."""
        ours = [rest.split() for rest in self.all("COPY") if not rest.startswith("--from=")]
        return {source: place for *sources, place in ours for source in sources}

    @property
    def health_command(self) -> list[str]:
        command: list[str] = json.loads(self.last("HEALTHCHECK").partition("CMD ")[2])
        return command


def stages(**build_arguments: str) -> dict[str, Stage]:
    text = (ROOT / "Dockerfile").read_text()
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    found: dict[str, Stage] = {}
    current: Stage | None = None
    arguments: dict[str, str] = {}
    for line in filter(str.strip, lines):
        word, _, rest = line.strip().partition(" ")
        if word == "ARG" and current is None:
            name, _, default = rest.partition("=")
            arguments[name] = build_arguments.get(name, default)
        elif word == "FROM":
            parent, _, name = rest.partition(" AS ")
            parent = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], parent)
            inherited = found[parent].instructions if parent in found else [("IMAGE", parent)]
            current = found[name] = Stage(name, list(inherited))
        else:
            assert current is not None
            current.instructions.append((word, " ".join(rest.split())))
    return found


def compose(**variables: str) -> dict[str, Any]:
    """docker-compose.yml with its variables filled in. Raises: KeyError for one that is missing."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        return variables[name] if operator == ":?" else variables.get(name, rest)

    text = (ROOT / "docker-compose.yml").read_text()
    loaded: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", value, text))
    return loaded


@cache
def manifests(folder: Path = ROOT / "deploy/kubernetes/base") -> list[dict[str, Any]]:
    """The Kubernetes objects that the kustomization names, before its changes to them.

    Raises: ValueError for what kustomize refuses as a cycle."""
    found = []
    for name in yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]:
        place = (folder / name).resolve()
        if folder.is_relative_to(place):
            raise ValueError(f"cycle: {folder} is in {place}, which it is made of")
        read = manifests(place) if place.is_dir() else yaml.safe_load_all(place.read_text())
        found += list(read)
    return found


def stage_of(service: Mapping[str, Any]) -> Stage:
    build = service["build"]
    return stages(**build.get("args", {}))[build["target"]]


def outside() -> dict[str, str]:
    """This machine's environment without what would say something to our processes."""
    said = ("CAPTIONING_", "AWS_", "PYTHON")
    return {name: value for name, value in os.environ.items() if not name.startswith(said)}
