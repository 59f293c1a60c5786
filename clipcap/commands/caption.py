"""`clipcap caption`: photographs and folders of them, on from where the last run stopped."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipcap.commands.decoding import decoding_options, precision_option
from clipcap.commands.outputs import Csv, Jsonl, Lines, Output, Sidecars, Text, one_line
from clipcap.errors import DataError, OptionsError
from clipcap.folders import find_photos
from clipcap.options import DecodingOptions

if TYPE_CHECKING:
    from clipcap.captioner import Captioner
    from clipcap.precision import Precision

FORMATS = ("text", "jsonl", "csv", "sidecar")
INTERRUPTED = 130  # as shells have it: 128 + SIGINT


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", default="bundled", help="A bundle folder, or 'bundled'.")
@click.option("--format", type=click.Choice(FORMATS), default="text")
@click.option("--out", type=click.Path(path_type=Path), help="A file to write to.")
@click.option("--batch-size", default=16, type=click.IntRange(min=1), help="Photographs at once.")
@precision_option
@decoding_options
def caption(
    paths: tuple[Path, ...],
    model: str,
    format: str,
    out: Path | None,
    batch_size: int,
    precision: Precision,
    **decoding: Any,
) -> None:
    """Caption photographs, and those in folders and all folders within.

    A line for each: text is `photo<TAB>caption`, csv has a header, jsonl has the scores as well.
    With sidecar, the caption of photo.jpg goes into photo.txt beside it.

    What is in --out already, or beside the photograph, is not done again: after a stop or a kill
    the same command goes on. What cannot be read is told at the end; the exit status is then 1.
    The options of decoding are the bundle's own unless they are given.
    """
    from clipcap.captioner import Captioner

    if format == "sidecar" and out is not None:
        raise OptionsError("--out does not go with sidecar, which writes beside the photographs")
    _allow_large_photos()
    captioner = Captioner.load(model, precision=precision)
    options = captioner.defaults.override(**decoding)
    output = _open(format, out, captioner, options)
    tally = Tally()
    try:
        with closing(output):
            _caption_all(captioner, paths, options, batch_size, output, tally)
    except KeyboardInterrupt:
        tally.report(output)
        click.echo("Stopped." + " The same command goes on." * output.lasts, err=True)
        sys.exit(INTERRUPTED)
    tally.report(output)
    if tally.is_empty:
        raise DataError(f"no photographs in {', '.join(map(str, paths))}")
    if tally.failures:
        sys.exit(1)


@dataclass
class Tally:
    captioned: int = 0
    done_before: int = 0
    failures: list[DataError] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.captioned or self.done_before or self.failures)

    def report(self, output: Output) -> None:
        for error in self.failures:
            click.echo(one_line(str(error)), err=True)
        if output.lasts:
            before = f" ({self.done_before} were done before)" if self.done_before else ""
            failed = f", {len(self.failures)} failed" if self.failures else ""
            click.echo(f"{self.captioned} captioned{before}{failed}", err=True)


def _allow_large_photos() -> None:
    """Pillow refuses more than 179 million pixels. From half of that it warns, but there are
    telephones that take such photographs."""
    from PIL import Image

    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def _open(format: str, out: Path | None, captioner: Captioner, options: DecodingOptions) -> Output:
    if format == "sidecar":
        return Sidecars()
    if format == "csv":
        return Lines(Csv(options.num_captions), out)
    return Lines(Jsonl(captioner.revision) if format == "jsonl" else Text(), out)


def _caption_all(
    captioner: Captioner,
    paths: Sequence[Path],
    options: DecodingOptions,
    batch_size: int,
    output: Output,
    tally: Tally,
) -> None:
    from tqdm import tqdm

    from clipcap.files import caption_files

    # A bar between the lines that it counts would spoil both.
    show = sys.stderr.isatty() and (output.lasts or not sys.stdout.isatty())
    total = sum(1 for _ in _not_done(paths, output, Tally())) if show else None
    photos = _not_done(paths, output, tally)
    with (
        tqdm(total=total, disable=not show, unit=" photos", dynamic_ncols=True) as bar,
        closing(caption_files(captioner, photos, options, batch_size=batch_size)) as captioned,
    ):
        for photo, found in captioned:
            try:
                if isinstance(found, DataError):
                    raise found
                output.write(photo, found)
                tally.captioned += 1
            except DataError as error:
                tally.failures.append(error)
            bar.update()


def _not_done(paths: Sequence[Path], output: Output, tally: Tally) -> Iterator[Path]:
    met: set[Path] = set()
    for photo in find_photos(paths, tally.failures.append):
        if len(paths) > 1:  # one may be in a folder, and named beside that
            if photo in met:
                continue
            met.add(photo)
        if output.has(photo):
            tally.done_before += 1
        else:
            yield photo
