"""The `captioning` command. Each subcommand imports what it needs when it runs, so that
`--help` answers at once."""

from __future__ import annotations

import os
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from captioning.queue import Queue
    from captioning.settings import Settings


def _one_line_errors(command: Callable[..., None]) -> Callable[..., None]:
    """What can go wrong is said in one line; a traceback means a bug."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        from captioning.errors import CaptioningError

        try:
            command(*args, **kwargs)
        except CaptioningError as error:
            raise click.ClickException(str(error)) from error

    return wrapped


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="captioning")
def main() -> None:
    """Caption photographs: run the service, hand in photographs, see how it is doing.

    Settings come from the environment as CAPTIONING_…: see docs/configuration.md.
    """


@main.command()
@_one_line_errors
def run() -> None:
    """Run the whole service on this machine, until Ctrl-C; the second one kills at once."""
    from captioning.local import launch
    from captioning.local.supervisor import StopNow
    from captioning.settings import load_settings

    try:
        launch.run(load_settings(), _say)
    except StopNow:
        _say("Stopped at once.")
        sys.exit(1)


@main.command()
@_one_line_errors
def migrate() -> None:
    """Bring the database to the newest schema."""
    # No success: those that wait for the schema would start.
    with _heard_sigterm(exit_code=128 + signal.SIGTERM):
        from captioning.database import Database
        from captioning.migrate import migrate
        from captioning.settings import load_settings

        settings = load_settings()
        if _owns_database(settings):
            _make_folder(settings)
        database = Database(settings.database_url)
        migrate(database)
        database.close()
    click.echo("The database is at the newest schema.")


@main.command()
def web() -> None:
    """Run one web server in the foreground."""
    _serve("web")


@main.command()
def worker() -> None:
    """Run one worker in the foreground."""
    _serve("worker")


@main.command()
@click.argument("photos", nargs=-1, required=True, metavar="PHOTO|FOLDER|URL...")
@click.option("--model", help="One of the models on offer.  [default: the first]")
@click.option(
    "--decoding", type=click.Choice(["beam", "greedy"]), default="beam", show_default=True
)
@click.option("--num-captions", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--max-words", type=click.IntRange(min=1), help="Most words of a caption.")
@click.option("--wait", is_flag=True, help="Wait, and print photo<TAB>caption.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="Give up when none has finished for so long.",
)
@click.option("--jsonl", is_flag=True, help="Print one JSON object for each photograph.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Wait, and write JSON lines to this file. What has a caption in it is left alone, so "
    "that the same command goes on after a stop.",
)
@_one_line_errors
def submit(photos: tuple[str, ...], **choices: Any) -> None:
    """Hand in photographs, those of folders, and those at public addresses (http://…). Prints
    a job id for each, in order.

    A photograph that cannot be read or captioned is reported and the others go on; the exit
    code is then 1.
    """
    from captioning import submission

    with _connected() as queue:
        try:
            well = submission.submit(queue, photos, **choices)
        except OSError as error:  # of the file to write
            raise click.ClickException(f"{error.filename}: {error.strerror}") from error
    sys.exit(0 if well else 1)


@main.command()
@click.argument("job", required=False)
@_one_line_errors
def status(job: str | None) -> None:
    """How the service is doing, or how a JOB is."""
    from captioning import shell

    with _connected() as queue, queue.database.read() as session:
        lines = shell.job_status(session, job) if job else shell.service_status(session)
        for line in lines:
            click.echo(line)


@main.group()
def keys() -> None:
    """Access keys, for CAPTIONING_ACCESS=keys."""


def _limits(rate: str | None, images_per_day: str | None) -> dict[str, Any]:
    """Those that were named. None is what the settings say."""
    given = {"rate": rate, "images_per_day": images_per_day}
    named: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if (number := named.get("images_per_day")) and number.isdecimal():
        named["images_per_day"] = int(number)
    return {name: None if value == "default" else value for name, value in named.items()}


RATE_OPTION = click.option(
    "--rate",
    metavar="NUMBER/UNIT",
    help="Most requests by second, minute, hour or day, as 600/minute; or off.  "
    "[default: CAPTIONING_RATE_LIMIT]",
)
QUOTA_OPTION = click.option(
    "--images-per-day",
    metavar="NUMBER",
    help="Most images by day (UTC).  [default: CAPTIONING_IMAGES_PER_DAY]",
)


@keys.command("create")
@click.argument("name")
@click.option("--role", type=click.Choice(["user", "admin"]), default="user", show_default=True)
@RATE_OPTION
@QUOTA_OPTION
@_one_line_errors
def create_key(name: str, role: str, rate: str | None, images_per_day: str | None) -> None:
    """Make a key for NAME, and print it: this once and never again.

    A user sees what was handed in under the key, an admin sees everything.
    """
    from captioning import access
    from captioning.models import Role

    limits = access.Limits(**_limits(rate, images_per_day))
    with _connected() as queue, queue.database.write() as session:
        secret = access.create_key(session, name, Role(role), limits)
    click.echo("It is not shown again: keep it where you keep passwords.", err=True)
    click.echo(secret)


@keys.command("list")
@_one_line_errors
def list_keys() -> None:
    """All keys, without their secrets."""
    from captioning import shell

    with _connected() as queue, queue.database.read() as session:
        for line in shell.keys(session):
            click.echo(line)


@keys.command("limit")
@click.argument("name")
@RATE_OPTION
@QUOTA_OPTION
@_one_line_errors
def limit_key(name: str, rate: str | None, images_per_day: str | None) -> None:
    """Change what the key NAME (or its id) may do at most, at once.

    What is not named stays; "default" is what the settings say.
    """
    from captioning import access

    with _connected() as queue, queue.database.write() as session:
        key = access.limit_key(session, name, _limits(rate, images_per_day))
    click.echo(f"{key.name} is limited.")


@keys.command("revoke")
@click.argument("name")
@_one_line_errors
def revoke_key(name: str) -> None:
    """End the key NAME (or its id) at once. What was handed in under it stays."""
    from captioning import access

    with _connected() as queue, queue.database.write() as session:
        key = access.revoke_key(session, name)
    click.echo(f"{key.name} is revoked.")


@contextmanager
def _connected() -> Iterator[Queue]:
    from captioning import connect
    from captioning.errors import DatabaseUnavailable
    from captioning.migrate import require_current

    queue = connect()
    try:
        if _owns_database(queue.settings) and not queue.settings.data_dir.is_dir():
            raise DatabaseUnavailable(
                f"No service has run in {queue.settings.data_dir}: start one by `captioning run`, "
                "or say by CAPTIONING_DATA_DIR where it runs."
            )
        require_current(queue.database)
        yield queue
    finally:
        queue.close()


def _owns_database(settings: Settings) -> bool:
    from captioning.settings import own_database_url

    return settings.database_url == own_database_url(settings.data_dir)


def _make_folder(settings: Settings) -> None:
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"{error.filename}: {error.strerror}") from error


def _serve(module: str) -> None:
    """Be that module: signals and exit code are its own."""
    with _heard_sigterm(exit_code=0):
        runpy.run_module(module, run_name="__main__", alter_sys=True)


@contextmanager
def _heard_sigterm(exit_code: int) -> Iterator[None]:
    """Until somebody sets a better handler: the first process of a container has no default
    actions, and would not hear SIGTERM while it imports torch or waits for a database."""
    # Not sys.exit, which waits for threads: whoever is killed here leaves nothing behind.
    before = signal.signal(signal.SIGTERM, lambda *_: os._exit(exit_code))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(line: str) -> None:
    try:
        click.echo(line)
    except OSError:  # the terminal has gone; the service goes on
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  (open for as long as the process)


if __name__ == "__main__":
    main()
