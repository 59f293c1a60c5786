"""A schema change only adds, so that the release before works on it (docs/operations.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import migrations.versions

VERSIONS = sorted(Path(migrations.versions.__path__[0]).glob("0*.py"))
TAKES_AWAY = {"alter_column", "drop_column", "drop_constraint", "drop_table", "rename_table"}


def calls(path: Path) -> set[str]:
    """The operations of a migration's way up."""
    tree = ast.parse(path.read_text())
    (upgrade,) = [
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "upgrade"
    ]
    return {
        node.func.attr
        for node in ast.walk(upgrade)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }


@pytest.mark.parametrize("path", VERSIONS, ids=lambda path: path.stem)
def test_a_migration_that_takes_away_says_that_it_contracts(path: Path) -> None:
    says_so = (ast.get_docstring(ast.parse(path.read_text())) or "").startswith("Contract:")
    assert says_so == bool(calls(path) & TAKES_AWAY)


def test_the_operations_are_found() -> None:
    assert "create_table" in calls(VERSIONS[0])
    assert "add_column" in calls(VERSIONS[1])
