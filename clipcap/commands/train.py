"""`clipcap train`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from clipcap.errors import TrainingError
from clipcap.training.config import TrainingConfig, read_config


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each field of TrainingConfig but the nested one."""
    for name, field in reversed(TrainingConfig.model_fields.items()):
        if name == "decoding":
            continue
        default = "" if field.default is None else f" [default: {field.default}]"
        option = click.option(
            f"--{name.replace('_', '-')}",
            name,
            show_default=False,
            help=f"{field.description or ''}{default}".strip(),
        )
        command = option(command)
    return command


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The bundle to make.")
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file of the fields below.")
@training_options
def train(data: Path, out: Path, config: Path | None, **fields: str | None) -> None:
    """Train a captioner on DATA: a folder of images with a metadata.jsonl, one that holds such
    folders as `train` and `dev`, COCO captions, Karpathy's splits, or webdataset shards
    (docs/data.md). Started again after a kill, it goes on."""
    try:
        from clipcap.training.run import train as run
    except ModuleNotFoundError as error:
        raise TrainingError(
            f"training needs {error.name}: pip install 'captioning[train]'"
        ) from error
    overrides = {name: value for name, value in fields.items() if value is not None}
    run(data, out, read_config(config, overrides))
    click.echo(f"{out}: trained. Its scores on the dev images: {out / 'README.md'}")
