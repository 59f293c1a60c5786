"""Prints what extras of pyproject.toml need, a requirement a line: for layers of an image that
hold the dependencies without the project.

    python scripts/requirements.py web postgresql
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def requirements(*extras: str) -> list[str]:
    """The project's own dependencies and those of the extras, and of the extras they name."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    found: list[str] = list(project["dependencies"])
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            if named := re.fullmatch(rf"{project['name']}\[(.+)\]", requirement):
                found += requirements(*named[1].split(","))
            else:
                found.append(requirement)
    return sorted(set(found))


if __name__ == "__main__":
    print("\n".join(requirements(*sys.argv[1:])))
