"""`clipcap caption`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from clipcap.errors import DataError
from clipcap.options import METHODS


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", default="bundled", help="A bundle folder, or 'bundled'.")
@click.option("--method", type=click.Choice(METHODS), help="Default: the bundle's own.")
@click.option("--num-captions", type=int, help="Candidates for each photograph.")
def caption(
    photos: tuple[Path, ...], model: str, method: str | None, num_captions: int | None
) -> None:
    """Print `photo<TAB>caption` for each photograph."""
    from clipcap.captioner import Captioner
    from clipcap.images import open_image

    captioner = Captioner.load(model)
    options = captioner.defaults.override(method=method, num_captions=num_captions)
    failed = 0
    for photo in photos:
        try:
            image = open_image(photo)
        except DataError as error:
            failed += 1
            click.echo(error, err=True)
            continue
        (candidates,) = captioner.caption([image], options)
        for found in candidates:
            click.echo(f"{photo}\t{found.text}")
    if failed:
        sys.exit(1)
