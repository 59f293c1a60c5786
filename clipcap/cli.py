"""The `clipcap` command: caption, train, evaluate, info. Mistakes end in one line."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import update_wrapper
from pathlib import Path
from typing import Any

import click

from clipcap.errors import ClipCapError, DataError
from clipcap.options import METHODS


def one_line_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except ClipCapError as error:
            raise click.ClickException(" ".join(str(error).split())) from error
        except BrokenPipeError:
            raise  # click ends quietly when nobody reads on
        except OSError as error:
            raise click.ClickException(f"{error.filename}: {error.strerror}") from error

    return update_wrapper(wrapper, command)


@click.group(context_settings={"show_default": True})
@click.version_option(package_name="captioning")
def main() -> None:
    """Caption photographs with ClipCap, train a captioner of your own, measure it."""


@main.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", default="bundled", help="A bundle folder, or 'bundled'.")
@click.option("--method", type=click.Choice(METHODS), help="Default: the bundle's own.")
@click.option("--num-captions", type=int, help="Candidates for each photograph.")
@one_line_errors
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


def training_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each field of TrainingConfig but the nested one."""
    from clipcap.training.config import TrainingConfig

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


@main.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The bundle to make.")
@click.option("--config", type=click.Path(path_type=Path), help="A TOML file of the fields below.")
@training_options
@one_line_errors
def train(data: Path, out: Path, config: Path | None, **fields: str | None) -> None:
    """Train a captioner on DATA: a folder of images with a metadata.jsonl, or one that holds
    such folders as `train` and `dev`. Started again after a kill, it goes on."""
    from clipcap.training.config import read_config
    from clipcap.training.run import train as run

    overrides = {name: value for name, value in fields.items() if value is not None}
    run(data, out, read_config(config, overrides))
    click.echo(f"{out}: trained. Its scores on the dev images: {out / 'README.md'}")


@main.command()
@click.argument("bundle")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write scores here.")
@click.option("--batch-size", default=32, type=click.IntRange(min=1), help="Images in one pass.")
@one_line_errors
def evaluate(bundle: str, data: Path, json_file: Path | None, batch_size: int) -> None:
    """Score BUNDLE (a folder, or 'bundled') on DATA, a captioned folder or one that holds it
    as `dev`. All scores are times 100."""
    from clipcap.captioner import Captioner
    from clipcap.evaluation.evaluate import evaluate as run
    from clipcap.evaluation.scores import load_scorers
    from clipcap.training.data import read_evaluation_set

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


@main.command()
@click.argument("bundle", default="bundled")
@one_line_errors
def info(bundle: str) -> None:
    """Say what a bundle is made of, after checking it whole."""
    from clipcap import bundle as bundles

    loaded = bundles.load(bundle)
    config = loaded.config
    mapper = config.mapper
    parameters = {
        "encoder": loaded.encoder.visual,
        "mapper": loaded.mapper,
        "decoder": loaded.decoder.model,
    }
    height, width = loaded.encoder.image_size
    click.echo(f"name      {config.name}, revision {loaded.revision}")
    click.echo(f"encoder   {config.encoder or 'in the bundle'}, sees {width} x {height} pixels")
    click.echo(
        f"mapper    {mapper.kind}: {mapper.embedding_dim} -> "
        f"{mapper.prefix_length} x {mapper.decoder_dim}"
    )
    click.echo(f"decoder   {config.decoder or 'in the bundle'}")
    for name, module in parameters.items():
        millions = sum(p.numel() for p in module.parameters()) / 1e6
        click.echo(f"          {name}: {millions:.1f} million parameters")
    click.echo(f"decoding  {config.decoding}")
    click.echo(f"licence   {config.licence or 'not stated'}")
