"""`clipcap info`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from clipcap.mappers import MapperConfig


@click.command()
@click.argument("bundle", default="bundled")
def info(bundle: str) -> None:
    """Say what a BUNDLE (a folder, or a name) is made of, after checking it whole."""
    import torch

    from clipcap import bundle as bundles
    from clipcap.captioner import Captioner
    from clipcap.models import locate

    loaded = bundles.load(locate(bundle))
    config = loaded.config
    parts = {
        "encoder": loaded.encoder.visual,
        "mapper": loaded.mapper,
        "decoder": loaded.decoder.model,
    }
    millions = {
        name: sum(p.numel() for p in module.parameters()) / 1e6 for name, module in parts.items()
    }
    captioner = Captioner(loaded)
    device, precision = captioner.device, captioner.precision
    chip = f"CPU, threads: {torch.get_num_threads()}"
    if device.type == "cuda":
        chip = torch.cuda.get_device_name(device)
    height, width = loaded.encoder.image_size
    click.echo(f"name      {config.name}, revision {loaded.revision}")
    click.echo(f"encoder   {config.encoder or 'in the bundle'}, sees {width} x {height} pixels")
    click.echo(f"mapper    {describe(config.mapper)}")
    click.echo(f"embedding {'' if config.normalize_embedding else 'not '}normalised")
    click.echo(f"decoder   {config.decoder or 'in the bundle'}")
    for name, count in millions.items():
        click.echo(f"          {name}: {count:.1f} million parameters")
    click.echo(f"decoding  {config.decoding}")
    click.echo(f"stops at  {config.stop_token}")
    click.echo(f"runs on   {chip}, {precision.mode}: {precision.reason}")
    click.echo(f"licence   {config.licence or 'not stated'}")


def describe(mapper: MapperConfig) -> str:
    sizes = f"{mapper.embedding_dim} -> {mapper.prefix_length} x {mapper.decoder_dim}"
    if mapper.kind != "transformer":
        return f"{mapper.kind}: {sizes}"
    return (
        f"transformer: {sizes}, by way of {mapper.clip_length} vectors, "
        f"{mapper.layers} layers of {mapper.heads} heads"
    )
