"""`clipcap convert`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--name", help="The bundle's name. Default: the checkpoint's.")
@click.option(
    "--encoder",
    help="Its CLIP, 'model:pretrained_tag' or an open_clip folder. Default: the authors' own.",
)
@click.option("--tokenizer", default="gpt2", help="A name on the hub, or a folder.")
@click.option("--mapper-heads", default=8, type=click.IntRange(min=1), help="Of a transformer.")
@click.option(
    "--normalize/--no-normalize",
    default=None,
    show_default=False,
    help="L2-normalise the embedding. Default: only for a transformer, as the authors did.",
)
def convert(
    checkpoint: Path,
    bundle: Path,
    name: str | None,
    encoder: str | None,
    tokenizer: str,
    mapper_heads: int,
    normalize: bool | None,
) -> None:
    """Make a BUNDLE of a CHECKPOINT (.pt) of ClipCap's authors, or of one trained by their code."""
    from clipcap.commands.info import describe
    from clipcap.convert import convert as run

    config = run(
        checkpoint,
        bundle,
        name=name,
        encoder=encoder,
        tokenizer=tokenizer,
        mapper_heads=mapper_heads,
        normalize_embedding=normalize,
    )
    click.echo(f"{bundle}: {describe(config.mapper)}; encoder {config.encoder or 'in the bundle'}")
