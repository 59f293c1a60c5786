"""What people make of a caption. Their text is kept beside the model's candidates, so that it
can be taken back, and in any state of the job: an outcome that comes later overwrites nothing.
"""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from captioning.database import storable
from captioning.errors import InvalidOption, JobNotFound
from captioning.models import Job, looked_up_id

MAX_CHARACTERS = 2000
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def edit(session: Session, job_id: str, text: str | None) -> None:
    """Write a text of one's own, on one line; None takes it back for the model's.

    Raises: InvalidOption, JobNotFound.
    """
    _change(session, job_id, edited_text=None if text is None else _one_line(text))


def hold(session: Session, job_id: str) -> None:
    """Let nobody else change the job until the transaction ends: what is read now stays so."""
    session.execute(select(Job.id).where(Job.id == looked_up_id(job_id)).with_for_update())


def mark_decorative(session: Session, job_id: str, decorative: bool) -> None:
    """Say whether the photograph says nothing that its page does not: then its alt is empty,
    and its caption is kept.

    Raises: JobNotFound.
    """
    _change(session, job_id, decorative=decorative)


def _one_line(text: str) -> str:
    """A caption goes into an attribute, a cell, a line of a list, a terminal."""
    line = " ".join(CONTROL.sub(" ", storable(text)).split())
    if not line:
        raise InvalidOption("A caption cannot be empty; mark the photograph as decorative.")
    if len(line) > MAX_CHARACTERS:
        raise InvalidOption(f"A caption has {MAX_CHARACTERS} characters at most.")
    return line


def _change(session: Session, job_id: str, **values: Any) -> None:
    changing = update(Job).where(Job.id == looked_up_id(job_id)).values(**values)
    changed = changing.returning(Job.id).execution_options(synchronize_session=False)
    if session.scalar(changed) is None:
        raise JobNotFound(f"There is no job {job_id}.")
