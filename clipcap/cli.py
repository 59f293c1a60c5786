"""The `clipcap` command: the group of clipcap/commands/, where mistakes end in one line."""

from __future__ import annotations

from typing import Any

import click

from clipcap.commands.caption import caption
from clipcap.commands.convert import convert
from clipcap.commands.data import data
from clipcap.commands.evaluate import evaluate
from clipcap.commands.info import info
from clipcap.commands.train import train
from clipcap.errors import ClipCapError
from clipcap.heap import keep_freed_memory


class OneLineErrors(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ClipCapError as error:
            raise click.ClickException(" ".join(str(error).split())) from error
        except BrokenPipeError:
            raise  # click ends quietly when nobody reads on
        except OSError as error:
            known = [str(part) for part in (error.filename, error.strerror) if part]
            raise click.ClickException(": ".join(known)) from error


@click.group(cls=OneLineErrors, context_settings={"show_default": True})
@click.version_option(package_name="captioning")
def main() -> None:
    """Caption photographs with ClipCap, train a captioner of your own, measure it."""
    keep_freed_memory()


for command in (caption, convert, data, evaluate, info, train):
    main.add_command(command)
