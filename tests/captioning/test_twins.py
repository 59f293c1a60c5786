"""Jobs that ask the same: which they are, that one runs, and what the others are answered with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select, update

from captioning import jobs, queries, removal
from captioning.database import Database, db_now
from captioning.errors import WrongState
from captioning.jobs import CaptionText, Claim, JobOptions
from captioning.models import Decoding, Job, JobStatus, Priority
from tests.captioning.test_jobs_at_once import at_once
from tests.factories import MODEL, add_image, read_job

CAT, DOG = "c" * 64, "d" * 64
TEXTS = [CaptionText("a cat", -0.5), CaptionText("an animal", -1.5)]
REVISION = "r1"


def submit(database: Database, sha256: str = CAT, count: int = 1, **options: Any) -> list[str]:
    with database.write() as session:
        images = [add_image(session, sha256=sha256) for _ in range(count)]
        chosen = JobOptions(**{"model": MODEL, **options})
        return [job.id for job in jobs.submit(session, images, chosen, max_attempts=3)]


def claim(
    database: Database, *, limit: int = 10, revision: str = REVISION, model: str = MODEL
) -> Claim | None:
    with database.write() as session:
        return jobs.claim(session, model, limit=limit, lease_s=60, revision=revision)


def taken(claimed: Claim | None) -> tuple[list[str], list[str]]:
    """`(to run, answered)`"""
    if claimed is None:
        return [], []
    return [job.id for job in claimed.jobs], [job.id for job in claimed.answered]


def finish(database: Database, claimed: Claim | None, revision: str = REVISION) -> None:
    assert claimed is not None
    captions = {job.id: TEXTS for job in claimed.jobs}
    with database.write() as session:
        saved = jobs.succeed(session, claimed.token, captions, model_revision=revision)
    assert saved == captions.keys()


def caption(database: Database, sha256: str = CAT, **options: Any) -> str:
    """A job that has succeeded."""
    (job_id,) = submit(database, sha256, **options)
    finish(database, claim(database, model=options.get("model", MODEL)))
    return job_id


def test_an_answer_is_the_same_captions_and_no_attempt(database: Database) -> None:
    source = caption(database)
    (job_id,) = submit(database)
    claimed = claim(database)
    assert taken(claimed) == ([], [job_id])
    assert claimed is not None
    assert claimed.answered[0].waited_s >= 0
    job, before = read_job(database, job_id), read_job(database, source)
    assert (job.status, job.attempts, job.started_at) == (JobStatus.SUCCEEDED, 0, None)
    assert job.finished_at is not None
    assert (job.lease_token, job.error_code, job.model_revision) == (None, None, REVISION)
    kept = [
        [(c.rank, c.text, c.mean_log_probability, c.model_revision) for c in each.captions]
        for each in (job, before)
    ]
    assert kept[0] == kept[1]
    assert len(kept[0]) == len(TEXTS)


@pytest.mark.parametrize(
    "options",
    [
        {"decoding": Decoding.GREEDY},
        {"num_captions": 2},
        {"max_words": 5},
        {"owner": "anna"},
        {"model": "other"},
        {"sha256": DOG},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_asks_anything_else_is_run(database: Database, options: dict[str, Any]) -> None:
    caption(database)
    different = submit(database, **options)
    model = options.get("model", MODEL)
    assert taken(claim(database, model=model)) == (different, [])
    (same,) = submit(database)
    assert taken(claim(database)) == ([], [same])


@pytest.mark.parametrize(
    "options",
    [{"priority": Priority.BULK}, {"webhook_url": "https://hooks.invalid/"}],
    ids=lambda options: next(iter(options)),
)
def test_what_has_no_part_in_the_captions_makes_no_difference(
    database: Database, options: dict[str, Any]
) -> None:
    caption(database)
    assert taken(claim_of(database, options))[0] == []


def claim_of(database: Database, options: dict[str, Any]) -> Claim | None:
    submit(database, **options)
    return claim(database)


def test_an_owners_answers_are_theirs_alone(database: Database) -> None:
    caption(database, owner="anna")
    for owner, to_run in (("anna", 0), ("ben", 1), ("", 1)):
        submit(database, owner=owner)
        assert len(taken(claim(database))[0]) == to_run


def test_another_revision_runs_again_and_each_keeps_its_answers(database: Database) -> None:
    caption(database)
    submit(database)
    new = claim(database, revision="r2")
    assert len(taken(new)[0]) == 1
    finish(database, new, "r2")
    for revision in (REVISION, "r2"):
        (job_id,) = submit(database)
        assert taken(claim(database, revision=revision)) == ([], [job_id])
        assert {c.model_revision for c in read_job(database, job_id).captions} == {revision}


def test_who_names_no_revision_is_given_no_answer(database: Database) -> None:
    caption(database)
    (job_id,) = submit(database)
    assert taken(claim(database, revision="")) == ([job_id], [])


def test_an_answer_answers_others_when_its_source_is_gone(database: Database) -> None:
    source = caption(database)
    (second,) = submit(database)
    claim(database)
    with database.write() as session:
        removal.remove(session, [source], patiently=True)
    (third,) = submit(database)
    assert taken(claim(database)) == ([], [third])
    with database.write() as session:
        removal.remove(session, [second, third], patiently=True)
    fourth = submit(database)
    assert taken(claim(database)) == (fourth, [])


def test_of_twins_one_is_claimed_and_then_the_others_are_answered(database: Database) -> None:
    first, *others = submit(database, count=5)
    (dog,) = submit(database, DOG)
    claimed = claim(database, limit=6)
    assert taken(claimed) == ([first, dog], [])
    assert claim(database) is None
    finish(database, claimed)
    assert taken(claim(database, limit=3)) == ([], others[:3])
    assert taken(claim(database, limit=3)) == ([], others[3:])


def test_one_that_runs_hides_neither_itself_nor_what_stands_behind_it(database: Database) -> None:
    """However many twins stand at the head of the queue."""
    cats = submit(database, count=20, owner="anna")
    claim(database, limit=1)
    (dog,) = submit(database, DOG, owner="anna")
    assert taken(claim(database, limit=4)) == ([dog], [])
    with database.read() as session:  # a worker that finds nothing else is not stuck
        assert queries.count_claimable(session, MODEL, at_most=100) == 0
        assert queries.queue_states(session, [MODEL])[MODEL].queued == len(cats) - 1


def test_twins_of_many_that_run_hide_nothing_either(database: Database) -> None:
    """More of them than a claim looks at in one go."""
    pictures = [f"{number:064}" for number in range(5)]
    running = [submit(database, picture)[0] for picture in pictures]
    assert taken(claim(database)) == (running, [])
    twins = [submit(database, picture, count=2) for picture in pictures]
    behind = submit(database, CAT) + submit(database, DOG)
    assert taken(claim(database, limit=2)) == (behind, [])
    assert claim(database, limit=2) is None
    with database.write() as session:
        jobs.cancel(session, running[0])
    assert taken(claim(database, limit=2)) == (twins[0][:1], [])


def fail(database: Database, claimed: Claim) -> None:
    with database.write() as session:
        jobs.fail(session, claimed.token, claimed.jobs[0].id, code="bad", message="Bad.")


def fail_in_passing(database: Database, claimed: Claim) -> None:
    with database.write() as session:
        jobs.fail_or_retry(session, claimed.token, claimed.jobs[0].id, code="bad", message="Bad.")


def give_back(database: Database, claimed: Claim) -> None:
    with database.write() as session:
        jobs.give_back(session, claimed.token, [claimed.jobs[0].id])


def die(database: Database, claimed: Claim) -> None:
    with database.write() as session:
        past = update(Job).where(Job.lease_token == claimed.token)
        session.execute(past.values(lease_expires_at=db_now(-1)))
        jobs.expire_leases(session)


def cancel(database: Database, claimed: Claim) -> None:
    with database.write() as session:
        jobs.cancel(session, claimed.jobs[0].id)


def remove(database: Database, claimed: Claim) -> None:
    with database.write() as session:
        removal.remove(session, [claimed.jobs[0].id], patiently=True)


@pytest.mark.parametrize("end", [fail, fail_in_passing, give_back, die, cancel, remove])
def test_when_the_one_that_runs_comes_to_nothing_a_twin_runs(
    database: Database, end: Callable[[Database, Claim], None]
) -> None:
    first, second = submit(database, count=2)
    claimed = claim(database)
    assert taken(claimed) == ([first], [])
    assert claimed is not None
    end(database, claimed)
    ran: list[str] = []
    while again := claim(database):
        ran += taken(again)[0]
        finish(database, again)
    # What was put back may be the one, or what waits behind it.
    assert len(ran) == 1
    assert read_job(database, second).status == JobStatus.SUCCEEDED


def test_a_retried_job_is_answered_by_what_its_twin_has_found(database: Database) -> None:
    first, second = submit(database, count=2)
    claimed = claim(database)
    assert claimed is not None
    fail(database, claimed)
    finish(database, claim(database))
    with database.write() as session:
        jobs.retry(session, first)
    assert taken(claim(database)) == ([], [first])
    with database.write() as session, pytest.raises(WrongState, match="succeeded"):
        jobs.retry(session, second)


def test_what_has_been_cancelled_is_not_answered(database: Database) -> None:
    caption(database)
    (job_id,) = submit(database)
    with database.write() as session:
        jobs.cancel(session, job_id)
    assert claim(database) is None
    assert read_job(database, job_id).captions == []


def test_a_suspect_is_answered_without_danger_and_runs_alone_otherwise(database: Database) -> None:
    suspect, *rest = submit(database, count=3)
    (dog,) = submit(database, DOG)
    with database.write() as session:
        session.execute(update(Job).where(Job.id == suspect).values(attempts=2))
    assert taken(claim(database)) == ([suspect], [])
    assert taken(claim(database)) == ([dog], [])
    with database.write() as session:
        jobs.cancel(session, suspect)
    finish(database, claim(database))
    with database.write() as session:
        jobs.retry(session, suspect)
        session.execute(update(Job).where(Job.id == suspect).values(attempts=2))
    assert sorted(taken(claim(database))[1]) == [suspect, rest[-1]]


def test_jobs_of_a_release_that_did_not_ask_are_run_each(database: Database) -> None:
    old = submit(database, count=2)
    with database.write() as session:
        session.execute(update(Job).values(asked=None))
    claimed = claim(database)
    assert taken(claimed) == (old, [])
    finish(database, claimed)
    new = submit(database)
    assert taken(claim(database)) == (new, [])


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_who_comes_while_another_claims_takes_something_else(database: Database) -> None:
    """Neither sees the other's claim before it is committed."""
    cats = submit(database, count=4, owner="anna")
    (dog,) = submit(database, DOG, owner="anna")
    with database.write() as first, database.write() as second:
        one = jobs.claim(first, MODEL, limit=2, lease_s=60, revision=REVISION)
        two = jobs.claim(second, MODEL, limit=2, lease_s=60, revision=REVISION)
    assert taken(one) == (cats[:1], [])
    assert taken(two) == ([dog], [])


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_what_another_claimed_since_the_queue_was_read_is_seen(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head is read and the question is free, but only because its holder has committed."""
    first, second = submit(database, count=2)
    read_head = jobs._head
    rivals: list[Claim | None] = []

    def slowly(*args: Any) -> Any:
        head = read_head(*args)
        if not rivals:
            rivals.append(None)
            with database.write() as session:  # as one whose claim began before ours
                past = update(Job).where(Job.id == second)
                running = {"status": JobStatus.RUNNING, "lease_token": "x", "attempts": 1}
                session.execute(past.values(**running, lease_expires_at=db_now(60)))
        return head

    monkeypatch.setattr(jobs, "_head", slowly)
    with database.write() as session:
        assert jobs.claim(session, MODEL, limit=1, lease_s=60, revision=REVISION) is None
    assert read_job(database, first).status == JobStatus.QUEUED


def test_many_at_once_are_run_once_by_many_workers(database: Database) -> None:
    """In every round: a question is free again only when it has been answered."""
    pictures = [f"{number:064}" for number in range(6)]
    for picture in pictures * 8:
        submit(database, picture)
    ran: list[str] = []

    def work() -> None:
        idle = 0
        while idle < 20:
            claimed = claim(database, limit=3)
            if claimed is None:
                idle += 1
                continue
            with database.read() as session:
                for job in claimed.jobs:
                    ran.append(queries.get_job(session, job.id).image.sha256)
            if claimed.jobs:
                finish(database, claimed)

    at_once([work] * 5)
    work()
    assert sorted(ran) == pictures
    with database.read() as session:
        done = select(func.count()).where(Job.status == JobStatus.SUCCEEDED)
        assert session.scalar(done) == len(pictures) * 8
