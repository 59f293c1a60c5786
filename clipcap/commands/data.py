"""`clipcap data`: check a data set, and convert the one format that could run code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import click

MOST_LINES = 20
"""Of problems, and of notes."""


@click.group()
def data() -> None:
    """Look at data before training on it."""


@data.command()
@click.argument("path", metavar="DATA", type=click.Path(path_type=Path))
@click.option("--model", default="bundled", help="The bundle to be trained: how long is too long.")
def check(path: Path, model: str) -> None:
    """Read every image and caption of DATA, in any format that `train` reads. Ends with status 1
    where something would stop or spoil training."""
    from clipcap.data.check import check as run

    found = run(path, _too_long_for(model))
    click.echo(f"{path}: {found.format}")
    for split, (images, captions) in found.counts.items():
        click.echo(f"{split:8}{images:9,} images {captions:9,} captions")
    _print_some("note", found.notes)
    _print_some("problem", found.problems)
    if found.problems:
        sys.exit(1)
    click.echo("no problems")


def _too_long_for(model: str) -> Callable[[str], bool]:
    """Whether training that starts from this bundle would cut a caption."""
    from clipcap import bundle as bundles
    from clipcap.models import locate
    from clipcap.training.captions import clean_caption, longest_caption
    from clipcap.training.config import TrainingConfig
    from clipcap.training.parts import as_started_from

    decoder = bundles.load(locate(model)).decoder
    config = as_started_from(TrainingConfig(start_from=model))
    longest = longest_caption(decoder, config)
    return lambda caption: len(decoder.encode(clean_caption(caption, config))) > longest


def _print_some(kind: str, messages: list[str]) -> None:
    for message in messages[:MOST_LINES]:
        click.echo(f"{kind}: {message}")
    if len(messages) > MOST_LINES:
        click.echo(f"{kind}: and {len(messages) - MOST_LINES} more")


@data.command("convert-pickle")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option(
    "--encoder",
    required=True,
    metavar="MODEL:TAG",
    help="The tower that made the embeddings, such as ViT-B-32-quickgelu:openai.",
)
def convert_pickle(source: Path, out: Path, encoder: str) -> None:
    """Make the embeddings that ClipCap's authors' scripts wrote (FILE, a pickle) into a folder
    OUT that `train` reads. `train` itself never reads a pickle."""
    from clipcap.data.pickled import convert_pickle as run

    click.echo(
        f"{source} is a pickle, a kind of file that can run code when it is read. Here only "
        "tensors, texts and numbers are read, and anything else is refused; still, convert only "
        "what comes from somebody you trust.",
        err=True,
    )
    images = run(source, out, encoder)
    click.echo(f"{out}: {images} images; train with --encoder {encoder} --start-from ''")
