"""`clipcap evaluate`: scores with intervals, captions and a report, of one bundle or of two."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clipcap.commands.decoding import decoding_options, precision_option
from clipcap.errors import DataError

if TYPE_CHECKING:
    from clipcap.captioner import Captioner
    from clipcap.data import Example
    from clipcap.evaluation.bootstrap import Difference
    from clipcap.evaluation.report import Entry
    from clipcap.options import DecodingOptions
    from clipcap.precision import Precision

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("bundle")
@click.argument("data", type=FILE)
@click.option("--against", metavar="BUNDLE", help="Compare with another bundle.")
@click.option("--split", help="Of DATA, where it has splits. [default: dev]", show_default=False)
@click.option("--json", "json_file", type=FILE, help="Write scores here.")
@click.option("--results", "results_file", type=FILE, help="Write captions here, as COCO does.")
@click.option("--report", "report_file", type=FILE, help="Write a page of HTML here.")
@click.option("--java", is_flag=True, help="Also METEOR and SPICE, whose programs need Java.")
@click.option("--batch-size", default=32, type=click.IntRange(min=1), help="Images in one pass.")
@precision_option
@decoding_options
def evaluate(
    bundle: str,
    data: Path,
    against: str | None,
    split: str | None,
    json_file: Path | None,
    results_file: Path | None,
    report_file: Path | None,
    java: bool,
    batch_size: int,
    precision: Precision,
    **decoding: Any,
) -> None:
    """Score BUNDLE (a folder, or 'bundled') on DATA, in any format that `train` reads. All
    scores are times 100, with the interval that holds 95 % of 1000 resamples of the images.
    The options of decoding are the bundle's own unless they are given."""
    from clipcap.captioner import Captioner
    from clipcap.data import read_evaluation_set
    from clipcap.evaluation.bootstrap import differences
    from clipcap.evaluation.report import html_report
    from clipcap.evaluation.results import caption_results
    from clipcap.evaluation.scores import load_scorers

    # What would fail after all captions are made fails now.
    load_scorers()
    for file in (json_file, results_file, report_file):
        if file is not None and not file.parent.is_dir():
            raise DataError(f"{file.parent}: no such folder")
    examples = read_evaluation_set(data, split)

    def measured(name: str) -> tuple[Entry, dict[str, Any]]:
        captioner = Captioner.load(name, precision=precision)
        options = captioner.defaults.override(**decoding)
        return _evaluate(captioner, options, data, examples, batch_size, java)

    entry, found = measured(bundle)
    entries = [entry]
    compared: Mapping[str, Difference] = {}
    if against is not None:
        other, found["against"] = measured(against)
        entries.append(other)
        compared = differences(entry.evaluation.measures, other.evaluation.measures, len(examples))
        found["differences"] = {name: row.as_dict() for name, row in compared.items()}
        _print_differences(entries, compared)
    if json_file is not None:
        _write_json(json_file, found)
    if results_file is not None:
        _write_json(results_file, caption_results(examples, entry.evaluation.captions))
    if report_file is not None:
        page = html_report(data.resolve().name, examples, entries, compared)
        report_file.write_text(page, encoding="utf-8")


def _evaluate(
    captioner: Captioner,
    options: DecodingOptions,
    data: Path,
    examples: Sequence[Example],
    batch_size: int,
    java: bool,
) -> tuple[Entry, dict[str, Any]]:
    """Caption, measure and print; returns what the report and the JSON say of it."""
    from clipcap.evaluation.bootstrap import intervals
    from clipcap.evaluation.evaluate import evaluate as run
    from clipcap.evaluation.java import JavaScores, java_scores
    from clipcap.evaluation.report import Entry
    from clipcap.evaluation.results import score_results
    from clipcap.evaluation.scores import TITLES

    started = time.monotonic()
    result = run(captioner, examples, options, batch_size=batch_size)
    seconds = time.monotonic() - started
    ranges = intervals(result.measures, len(examples))
    references = [example.captions for example in examples]
    more = java_scores(result.captions, references) if java else JavaScores()
    click.echo(f"{captioner.name} ({captioner.revision}) on {len(examples)} images of {data}")
    for key, measured in result.measures.items():
        low, high = ranges[key].low, ranges[key].high
        click.echo(f"{TITLES[key]:9} {measured.value():6.2f}   {low:.2f} to {high:.2f}")
    for key, value in more.scores.items():
        click.echo(f"{TITLES[key]:9} {value:6.2f}")
    for key, why in more.left_out.items():
        click.echo(f"{TITLES[key]:9} left out: {why}")
    click.echo(f"{len(examples) / seconds:.1f} images a second")
    found = {
        **score_results(result, ranges, more.scores),
        "images": len(examples),
        "seconds": round(seconds, 1),
        "bundle": captioner.name,
        "revision": captioner.revision,
        "precision": captioner.precision.mode,
        "decoding": asdict(options),
    }
    title = f"{captioner.name} ({captioner.revision})"
    return Entry(title, result, ranges, more.scores), found


def _print_differences(entries: Sequence[Entry], compared: Mapping[str, Difference]) -> None:
    from clipcap.evaluation.scores import TITLES

    click.echo(f"{entries[0].title} less {entries[1].title}:")
    for key, row in compared.items():
        click.echo(
            f"{TITLES[key]:9} {row.value:+6.2f}   {row.low:+.2f} to {row.high:+.2f}, "
            f"better in {100 * row.share_above:.1f} % of the resamples"
        )


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
