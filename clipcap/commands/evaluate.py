"""`clipcap evaluate`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from clipcap.errors import DataError


@click.command()
@click.argument("bundle")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write scores here.")
@click.option("--batch-size", default=32, type=click.IntRange(min=1), help="Images in one pass.")
def evaluate(bundle: str, data: Path, json_file: Path | None, batch_size: int) -> None:
    """Score BUNDLE (a folder, or 'bundled') on DATA, a captioned folder or one that holds it
    as `dev`. All scores are times 100."""
    from clipcap.captioner import Captioner
    from clipcap.data import read_evaluation_set
    from clipcap.evaluation.evaluate import evaluate as run
    from clipcap.evaluation.scores import load_scorers

    # What would fail after all captions are made fails now.
    load_scorers()
    if json_file is not None and not json_file.parent.is_dir():
        raise DataError(f"{json_file.parent}: no such folder")
    examples = read_evaluation_set(data)
    captioner = Captioner.load(bundle)
    started = time.monotonic()
    result = run(captioner, examples, batch_size=batch_size)
    seconds = time.monotonic() - started
    scores = result.scores
    click.echo(f"{captioner.name} ({captioner.revision}) on {len(examples)} images of {data}")
    click.echo(f"BLEU-4   {scores.bleu_4:6.2f}")
    click.echo(f"ROUGE-L  {scores.rouge_l:6.2f}")
    click.echo(f"CIDEr-D  {scores.cider_d:6.2f}")
    click.echo(f"{len(examples) / seconds:.1f} images a second")
    if json_file is not None:
        report = {
            **scores.as_dict(),
            "images": len(examples),
            "seconds": round(seconds, 1),
            "bundle": captioner.name,
            "revision": captioner.revision,
        }
        json_file.write_text(json.dumps(report, indent=2) + "\n")
