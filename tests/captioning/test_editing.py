"""What people write in place of the model's captions, on both databases."""

from __future__ import annotations

import pytest

from captioning import editing, jobs
from captioning.database import Database
from captioning.errors import InvalidOption, JobNotFound
from captioning.jobs import CaptionText
from captioning.models import JobStatus
from tests.factories import MODEL, add_jobs, read_job


def edit(database: Database, job_id: str, text: str | None) -> None:
    with database.write() as session:
        editing.edit(session, job_id, text)


def finish(database: Database, job_id: str, text: str) -> None:
    with database.write() as session:
        claim = jobs.claim(session, MODEL, limit=1, lease_s=60)
        assert claim is not None
        jobs.succeed(session, claim.token, {job_id: [CaptionText(text, -1)]}, model_revision="r")


def test_an_edit_is_shown_and_the_models_text_is_kept(database: Database) -> None:
    (job_id,) = add_jobs(database, 1)
    finish(database, job_id, "a dog")
    assert read_job(database, job_id).text == "a dog"
    edit(database, job_id, "our dog")
    job = read_job(database, job_id)
    assert (job.text, job.alt, job.captions[0].text) == ("our dog", "our dog", "a dog")
    edit(database, job_id, None)
    assert read_job(database, job_id).text == "a dog"


def test_an_outcome_that_comes_later_overwrites_no_edit(database: Database) -> None:
    (job_id,) = add_jobs(database, 1)
    edit(database, job_id, "our dog")
    finish(database, job_id, "a dog")
    job = read_job(database, job_id)
    assert (job.status, job.text) == (JobStatus.SUCCEEDED, "our dog")


def test_an_edit_is_one_line_that_every_database_keeps(database: Database) -> None:
    (job_id,) = add_jobs(database, 1)
    edit(database, job_id, "  our\r\n dog\t\u2028\0here \ud800 ")
    assert read_job(database, job_id).text == "our dog \ufffdhere ?"
    edit(database, job_id, "a \x1b[31mred\x07 \x9bdog\x7f")
    assert read_job(database, job_id).text == "a [31mred dog"


@pytest.mark.parametrize("text", ["", " \n", "x" * (editing.MAX_CHARACTERS + 1)])
def test_nothing_and_too_much_are_refused(database: Database, text: str) -> None:
    (job_id,) = add_jobs(database, 1)
    with pytest.raises(InvalidOption):
        edit(database, job_id, text)
    assert read_job(database, job_id).text is None


def test_a_decorative_photograph_has_an_empty_alt_and_keeps_its_caption(database: Database) -> None:
    (job_id,) = add_jobs(database, 1)
    finish(database, job_id, "a dog")
    for decorative, alt in ((True, ""), (False, "a dog")):
        with database.write() as session:
            editing.mark_decorative(session, job_id, decorative)
        job = read_job(database, job_id)
        assert (job.text, job.alt) == ("a dog", alt)


def test_a_job_that_is_not_there_is_not_edited(database: Database) -> None:
    with pytest.raises(JobNotFound):
        edit(database, "0" * 32, "our dog")
    with pytest.raises(JobNotFound), database.write() as session:
        editing.mark_decorative(session, "\0", True)
