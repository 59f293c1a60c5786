"""`clipcap info`."""

from __future__ import annotations

import click


@click.command()
@click.argument("bundle", default="bundled")
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
