"""The command line's options of decoding: those of DecodingOptions, whatever they are."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType
from typing import Any, get_args, get_type_hints

import click

from clipcap.options import DecodingOptions

precision_option = click.option(
    "--precision",
    default="auto",
    type=click.Choice(["auto", "fp32", "bf16", "int8"]),
    help="What to compute with: auto is what suits the device, and says `clipcap info`.",
)


def decoding_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """An option for each field, None where nobody chose: then the bundle's own holds.

    Made for `DecodingOptions.override`.
    """
    fields = get_type_hints(DecodingOptions, include_extras=True)
    for name, annotated in reversed(fields.items()):
        kind, means = get_args(annotated)
        option = click.option(f"--{name.replace('_', '-')}", name, type=_type(kind), help=means)
        command = option(command)
    return command


def _type(kind: Any) -> Any:
    """A Literal is a choice; `int | None` is an int."""
    inner = [each for each in get_args(kind) if each is not NoneType]
    if inner and all(isinstance(each, str) for each in inner):
        return click.Choice(inner)
    return inner[0] if inner else kind
