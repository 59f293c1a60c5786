"""Which jobs of many, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from captioning import editing, finding
from captioning.database import Database
from captioning.finding import Wanted
from captioning.models import Caption, JobStatus, new_id
from tests.factories import add_job, add_jobs

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def found(database: Database, wanted: Wanted) -> list[str]:
    with database.read() as session:
        jobs = [job.id for job in finding.list_jobs(session, wanted, limit=10)]
        assert list(finding.list_job_ids(session, wanted, limit=10)) == jobs
        assert finding.count_jobs(session, wanted, at_most=10) == len(jobs)
    return jobs


def add_captioned(database: Database, *texts: str) -> str:
    with database.write() as session:
        job_id = add_job(session, JobStatus.SUCCEEDED)
        session.add_all(
            Caption(job_id=job_id, rank=rank, text=t, mean_log_probability=-1, model_revision="r")
            for rank, t in enumerate(texts)
        )
    return job_id


def test_every_word_must_occur_in_any_case(database: Database) -> None:
    dog = add_captioned(database, "A dog on a beach.", "a brown animal")
    cat = add_captioned(database, "A cat on a beach.")
    add_jobs(database, 1)
    assert found(database, Wanted(words="BEACH")) == [cat, dog]
    assert found(database, Wanted(words=" dog  beach ")) == [dog]
    assert found(database, Wanted(words="animal dog")) == [dog]  # of any candidate
    assert found(database, Wanted(words="dog cat")) == []


@pytest.mark.parametrize("text", ["Über den Dächern", "ÜBER DEN DÄCHERN", "über den dächern"])
def test_case_makes_no_difference_beyond_ascii_either(database: Database, text: str) -> None:
    """In a caption or an edit; a job that has neither is passed over."""
    by_model, edited = add_captioned(database, text), add_captioned(database, "roofs")
    add_jobs(database, 1)
    with database.write() as session:
        editing.edit(session, edited, text)
    for words in ("über", "ÜBER", "Über dächern"):
        assert found(database, Wanted(words=words)) == [edited, by_model]


def test_edits_are_searched_too(database: Database) -> None:
    dog = add_captioned(database, "A dog on a beach.")
    with database.write() as session:
        editing.edit(session, dog, "Bello at the sea")
    for words in ("bello", "dog", "bello beach"):
        assert found(database, Wanted(words=words)) == [dog]


@pytest.mark.parametrize("words", ["%", "_", "\\", "/", "100%", "'", "\0", "\ud800", "a " * 999])
def test_no_character_of_a_search_has_a_meaning(database: Database, words: str) -> None:
    add_captioned(database, "nothing of it")
    assert found(database, Wanted(words=words)) == []


def test_a_percent_sign_is_found(database: Database) -> None:
    sale = add_captioned(database, "A sign: 50% off")
    assert found(database, Wanted(words="50%")) == [sale]


def test_jobs_are_found_by_state_and_model(database: Database) -> None:
    (failed,) = add_jobs(database, 1, status=JobStatus.FAILED)
    (other,) = add_jobs(database, 1, model="other")
    assert found(database, Wanted({JobStatus.FAILED})) == [failed]
    assert found(database, Wanted({JobStatus.FAILED, JobStatus.QUEUED})) == [other, failed]
    assert found(database, Wanted(model="other")) == [other]
    assert found(database, Wanted(model="\0")) == []
    assert found(database, Wanted(upto=failed)) == [failed]


def test_jobs_are_found_by_the_time_at_which_they_were_made(database: Database) -> None:
    moments = [NOON + timedelta(hours=hours) for hours in (-1, 0, 1)]
    for moment in moments:
        job_id = f"{int(moment.timestamp() * 1000):012x}{new_id()[12:]}"
        add_jobs(database, 1, id=job_id, created_at=moment)
    before, noon, after = sorted(found(database, Wanted()))
    assert found(database, Wanted(after=NOON)) == [after]
    assert found(database, Wanted(before=NOON)) == [before]
    second = timedelta(seconds=1)
    assert found(database, Wanted(after=NOON - second, before=NOON + second)) == [noon]


def test_clocks_that_are_apart_hide_no_job(database: Database) -> None:
    """An id comes from another clock than `created_at`."""
    (late,) = add_jobs(database, 1, created_at=datetime.now(UTC) - timedelta(hours=20))
    yesterday = datetime.now(UTC) - timedelta(hours=19)
    assert found(database, Wanted(before=yesterday)) == [late]
    assert found(database, Wanted(after=yesterday)) == []
