"""The verbs of a job on both databases: only the legal transitions change anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from captioning import jobs
from captioning.access import Caller
from captioning.database import Database, db_now
from captioning.errors import JobNotFound, WrongState
from captioning.jobs import CaptionText, Claim, JobOptions
from captioning.models import Batch, Caption, Decoding, Image, Job, JobStatus, Priority, new_id
from tests.factories import MODEL, add_image, add_job, add_jobs, read_job

QUEUED, RUNNING, SUCCEEDED, FAILED, CANCELLED = JobStatus
TEXT = [CaptionText("a dog on a beach", -0.5)]
Verb = Callable[[Session, str, str], object]


def claim(database: Database, limit: int = 10, model: str = MODEL, lease_s: float = 60) -> Claim:
    with database.write() as session:
        claimed = jobs.claim(session, model, limit=limit, lease_s=lease_s)
    assert claimed is not None
    return claimed


def claim_nothing(database: Database, model: str = MODEL) -> bool:
    with database.write() as session:
        return jobs.claim(session, model, limit=10, lease_s=60) is None


def ids(claimed: Claim) -> list[str]:
    return [job.id for job in claimed.jobs]


def change(database: Database, job_id: str, **columns: Any) -> None:
    with database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(**columns))


def columns(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in Job.__table__.columns.keys()}  # noqa: SIM118


# --- every verb from every state ---------------------------------------------------------

VERBS: dict[str, Verb] = {
    "claim": lambda s, job, token: jobs.claim(s, MODEL, limit=5, lease_s=60),
    "renew": lambda s, job, token: jobs.renew(s, [token], lease_s=600),
    "succeed": lambda s, job, token: jobs.succeed(s, token, {job: TEXT}, model_revision="r"),
    "fail": lambda s, job, token: jobs.fail(s, token, job, code="bad", message="Bad."),
    "fail_or_retry": lambda s, job, token: jobs.fail_or_retry(
        s, token, job, code="flaky", message="Flaky."
    ),
    "give_back": lambda s, job, token: jobs.give_back(s, token, [job]),
    "cancel": lambda s, job, token: jobs.cancel(s, job),
    "retry": lambda s, job, token: jobs.retry(s, job),
    "expire_leases": lambda s, job, token: any(jobs.expire_leases(s)),
}
LEGAL: dict[str, dict[JobStatus, JobStatus]] = {
    "claim": {QUEUED: RUNNING},
    "renew": {RUNNING: RUNNING},
    "succeed": {RUNNING: SUCCEEDED},
    "fail": {RUNNING: FAILED},
    "fail_or_retry": {RUNNING: QUEUED},
    "give_back": {RUNNING: QUEUED},
    "cancel": {QUEUED: CANCELLED, RUNNING: CANCELLED},
    "retry": {FAILED: QUEUED, CANCELLED: QUEUED},
    "expire_leases": {},  # the lease has not run out; see below for when it has
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("status", list(JobStatus))
def test_only_legal_transitions_change_anything(
    database: Database, verb: str, status: JobStatus
) -> None:
    (job_id,) = add_jobs(database, 1, status=status)
    before = read_job(database, job_id)
    done: object = None
    try:
        with database.write() as session:
            done = VERBS[verb](session, job_id, before.lease_token or new_id())
    except WrongState:
        assert verb in ("cancel", "retry")
    after = read_job(database, job_id)

    if status in LEGAL[verb]:
        assert after.status == LEGAL[verb][status]
        assert columns(after) != columns(before)
    else:
        assert not done
        assert columns(after) == columns(before)
    assert len(after.captions) == (verb == "succeed" and status == RUNNING)


@pytest.mark.parametrize("verb", ["renew", "succeed", "fail", "fail_or_retry", "give_back"])
def test_somebody_elses_token_changes_nothing(database: Database, verb: str) -> None:
    (job_id,) = add_jobs(database, 1, status=RUNNING)
    before = read_job(database, job_id)
    with database.write() as session:
        assert not VERBS[verb](session, job_id, new_id())
    assert columns(read_job(database, job_id)) == columns(before)


@pytest.mark.parametrize("verb", [jobs.cancel, jobs.retry])
@pytest.mark.parametrize("job_id", ["0" * 32, "", "x" * 500, "a\x00b", "' OR 1=1 --"])
def test_an_unknown_job_is_not_found(
    database: Database, verb: Callable[[Session, str], None], job_id: str
) -> None:
    with database.write() as session, pytest.raises(JobNotFound):
        verb(session, job_id)


@pytest.mark.parametrize("status", list(JobStatus))
def test_the_database_itself_refuses_running_without_a_lease(
    database: Database, status: JobStatus
) -> None:
    wrong = None if status == RUNNING else new_id()
    with pytest.raises(IntegrityError):
        add_jobs(database, 1, status=status, lease_token=wrong)


# --- submit -------------------------------------------------------------------------------


def test_submit_queues_one_job_for_each_image_in_order(database: Database) -> None:
    with database.write() as session:
        images = [add_image(session, stored_at=None) for _ in range(100)]
        batch = Batch(rejected=[])
        session.add(batch)
        session.flush()
        submitted = jobs.submit(session, images, JobOptions(MODEL), max_attempts=3, batch=batch)
    assert [job.image_id for job in submitted] == [image.id for image in images]
    assert [job.id for job in submitted] == sorted(job.id for job in submitted)
    with database.read() as session:
        assert session.scalar(select(func.count()).where(Image.stored_at.is_(None))) == 0
        stored = session.scalars(select(Job).order_by(Job.id)).all()
    assert [job.image_id for job in stored] == [image.id for image in images]
    assert {(job.status, job.attempts, job.batch_id) for job in stored} == {(QUEUED, 0, batch.id)}


def test_ids_made_in_one_burst_sort_in_the_order_they_were_made() -> None:
    made = [new_id() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_a_submission_that_is_rolled_back_leaves_nothing(database: Database) -> None:
    def submit_and_die() -> None:
        with database.write() as session:
            images = [add_image(session, stored_at=None)]
            jobs.submit(session, images, JobOptions(MODEL), max_attempts=3)
            raise RuntimeError("died before the commit")

    with pytest.raises(RuntimeError):
        submit_and_die()
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 0
        assert session.scalar(select(func.count()).select_from(Image)) == 0


# --- claim --------------------------------------------------------------------------------


def test_claim_takes_the_oldest_first_up_to_the_limit(database: Database) -> None:
    queued = add_jobs(database, 5)
    assert ids(claim(database, limit=3)) == queued[:3]
    assert ids(claim(database, limit=3)) == queued[3:]
    assert claim_nothing(database)


def test_claim_says_what_the_worker_needs(database: Database) -> None:
    (job_id,) = add_jobs(database, 1, decoding=Decoding.GREEDY)
    claimed = claim(database)
    (held,) = claimed.jobs
    row = read_job(database, job_id)
    assert (claimed.model, claimed.token) == (MODEL, row.lease_token)
    assert held.image_key == row.image.key
    assert held.decoding is Decoding.GREEDY
    assert (held.num_captions, held.attempts, row.attempts) == (1, 1, 1)
    assert row.started_at is not None
    assert row.lease_expires_at is not None
    assert 55 < (row.lease_expires_at - row.started_at).total_seconds() < 65


def test_claim_reads_the_row_and_not_a_copy_that_the_session_already_had(
    database: Database,
) -> None:
    (job_id,) = add_jobs(database, 1)
    with database.write() as session:
        known = session.get(Job, job_id)
        assert known is not None
        claimed = jobs.claim(session, MODEL, limit=1, lease_s=60)
    assert claimed is not None
    assert claimed.jobs[0].attempts == 1


def test_claim_keeps_to_its_model(database: Database) -> None:
    add_jobs(database, 2, model="other")
    (ours,) = add_jobs(database, 1)
    assert ids(claim(database)) == [ours]
    assert claim_nothing(database)
    assert claim_nothing(database, model="third")


def test_claim_leaves_jobs_that_wait_for_their_time(database: Database) -> None:
    with database.write() as session:
        add_job(session, available_at=db_now(3600))
        due = add_job(session, available_at=db_now(-1))
    assert ids(claim(database)) == [due]
    assert claim_nothing(database)


def test_jobs_put_off_do_not_hide_those_behind_them(database: Database) -> None:
    with database.write() as session:
        for _ in range(10):
            add_job(session, available_at=db_now(3600))
    due = add_jobs(database, 3)
    assert ids(claim(database, limit=3)) == due


# --- whose turn it is --------------------------------------------------------------------


def upload(
    database: Database, count: int, *, owner: str = "", priority: Priority = Priority.INTERACTIVE
) -> list[str]:
    """The jobs of one upload, in order."""
    with database.write() as session:
        images = [add_image(session) for _ in range(count)]
        options = JobOptions(MODEL, owner=owner, priority=priority)
        return [job.id for job in jobs.submit(session, images, options, max_attempts=3)]


def test_a_photograph_waits_for_one_job_of_a_large_upload(database: Database) -> None:
    large = upload(database, 5)
    (alone,) = upload(database, 1)
    assert ids(claim(database, limit=3)) == [large[0], alone, large[1]]


def test_uploads_of_nobody_take_turns(database: Database) -> None:
    first, second = upload(database, 3), upload(database, 2)
    claimed = ids(claim(database))
    assert claimed == [first[0], second[0], first[1], second[1], first[2]]


def test_owners_take_turns_however_many_uploads_each_has(database: Database) -> None:
    archive = [job for _ in range(3) for job in upload(database, 2, owner="archive")]
    shop = upload(database, 2, owner="shop")
    claimed = ids(claim(database))
    assert claimed == [archive[0], shop[0], archive[1], shop[1], *archive[2:]]


def test_a_latecomer_joins_at_the_round_the_queue_has_come_to(database: Database) -> None:
    """Neither its own idle time nor what the others had before it came is made up for."""
    archive = upload(database, 6, owner="archive")
    claim(database, limit=2)
    shop = upload(database, 2, owner="shop")
    assert ids(claim(database, limit=4)) == [archive[2], shop[0], archive[3], shop[1]]


def test_bulk_jobs_wait_for_interactive_ones(database: Database) -> None:
    bulk = upload(database, 2, priority=Priority.BULK)
    interactive = upload(database, 2)
    assert ids(claim(database)) == [*interactive, *bulk]


def test_owners_take_turns_in_each_priority_by_itself(database: Database) -> None:
    upload(database, 5, owner="shop", priority=Priority.BULK)
    archive = upload(database, 2, owner="archive")
    shop = upload(database, 1, owner="shop")
    assert ids(claim(database, limit=3)) == [archive[0], shop[0], archive[1]]


def test_what_is_tried_again_takes_its_turn_anew(database: Database) -> None:
    """A stock of places that was cancelled while nobody waited is worth nothing."""
    shop = upload(database, 3, owner="shop")
    for job_id in shop:
        with database.write() as session:
            jobs.cancel(session, job_id)
    archive = upload(database, 6, owner="archive")
    claim(database, limit=3)
    for job_id in shop:
        with Caller("shop").seen(database).write() as session:  # which sees its own jobs only
            jobs.retry(session, job_id)
    claimed = ids(claim(database))
    assert claimed == [shop[0], archive[3], shop[1], archive[4], shop[2], archive[5]]


def test_what_is_given_back_goes_before_what_came_since(database: Database) -> None:
    running = upload(database, 3)
    claimed = claim(database)
    (alone,) = upload(database, 1)
    with database.write() as session:
        jobs.give_back(session, claimed.token, running)
    assert ids(claim(database)) == [*running, alone]


def test_a_cancelled_job_is_passed_over(database: Database) -> None:
    archive = upload(database, 3, owner="archive")
    shop = upload(database, 1, owner="shop")
    with database.write() as session:
        jobs.cancel(session, archive[0])
    assert ids(claim(database)) == [shop[0], *archive[1:]]


@pytest.mark.parametrize("attempts", [(1, 0, 0, 0), (1, 1, 0, 0), (2, 0, 0, 1)])
def test_a_suspect_at_the_head_runs_alone(database: Database, attempts: tuple[int, ...]) -> None:
    with database.write() as session:
        queued = [add_job(session, attempts=made) for made in attempts]
    assert ids(claim(database)) == queued[:1]


def test_a_suspect_in_the_middle_waits_and_is_not_forgotten(database: Database) -> None:
    with database.write() as session:
        first, suspect, last = (add_job(session, attempts=made) for made in (0, 2, 0))
    assert ids(claim(database)) == [first, last]
    assert ids(claim(database)) == [suspect]
    assert claim_nothing(database)


# --- what a claim may do ------------------------------------------------------------------


def test_succeed_saves_captions_best_first(database: Database) -> None:
    (job_id,) = add_jobs(database, 1, num_captions=2)
    texts = [CaptionText("a dog", -0.25), CaptionText("an animal — “très” 🐕", -1.5)]
    token = claim(database).token
    with database.write() as session:
        assert jobs.succeed(session, token, {job_id: texts}, model_revision="abc") == {job_id}
    job = read_job(database, job_id)
    assert [(c.rank, c.text, c.mean_log_probability) for c in job.captions] == [
        (0, "a dog", -0.25),
        (1, "an animal — “très” 🐕", -1.5),
    ]
    assert {c.model_revision for c in job.captions} == {"abc"}
    assert (job.status, job.lease_token, job.lease_expires_at) == (SUCCEEDED, None, None)
    assert job.finished_at is not None


def test_captions_are_saved_once(database: Database) -> None:
    (job_id,) = add_jobs(database, 1)
    token = claim(database).token
    for expected in ({job_id}, set()):
        with database.write() as session:
            saved = jobs.succeed(session, token, {job_id: TEXT}, model_revision="r")
        assert saved == expected
    assert len(read_job(database, job_id).captions) == 1


def test_succeed_saves_only_those_still_held(database: Database) -> None:
    first, second, third = add_jobs(database, 3)
    token = claim(database).token
    with database.write() as session:
        jobs.cancel(session, second)
    with database.write() as session:
        captions = {first: TEXT, second: TEXT, third: TEXT}
        assert jobs.succeed(session, token, captions, model_revision="r") == {first, third}
    assert read_job(database, second).captions == []
    assert read_job(database, second).status == CANCELLED


def test_a_cancelled_running_job_saves_nothing_even_after_a_retry(database: Database) -> None:
    (job_id,) = add_jobs(database, 1)
    late = claim(database).token
    with database.write() as session:
        jobs.cancel(session, job_id)
    with database.write() as session:
        jobs.retry(session, job_id)
    fresh = claim(database).token
    with database.write() as session:
        assert jobs.succeed(session, late, {job_id: TEXT}, model_revision="late") == set()
        assert not jobs.fail(session, late, job_id, code="late", message="Late.")
    with database.write() as session:
        assert jobs.succeed(session, fresh, {job_id: TEXT}, model_revision="fresh") == {job_id}
    assert [c.model_revision for c in read_job(database, job_id).captions] == ["fresh"]


def test_renew_extends_every_lease_still_held(database: Database) -> None:
    first, second = add_jobs(database, 2)
    tokens = [claim(database, limit=1, lease_s=1).token for _ in range(2)]
    with database.write() as session:
        jobs.cancel(session, second)
        assert jobs.renew(session, [*tokens, new_id()], lease_s=3600) == 1
        assert jobs.renew(session, [], lease_s=3600) == 0
    job = read_job(database, first)
    assert job.lease_expires_at is not None
    assert job.started_at is not None
    assert (job.lease_expires_at - job.started_at).total_seconds() > 3500


def test_fail_says_why(database: Database) -> None:
    (job_id,) = add_jobs(database, 1)
    token = claim(database).token
    with database.write() as session:
        assert jobs.fail(session, token, job_id, code="unreadable", message="Broken.")
    job = read_job(database, job_id)
    assert (job.status, job.error_code, job.error_message) == (FAILED, "unreadable", "Broken.")
    assert job.finished_at is not None
    assert job.lease_token is None


@pytest.mark.parametrize("end", [jobs.fail, jobs.fail_or_retry])
def test_a_message_that_is_no_text_is_told_all_the_same(
    database: Database, end: Callable[..., bool]
) -> None:
    (job_id,) = add_jobs(database, 1)
    claimed = claim(database)
    with database.write() as session:
        assert end(session, claimed.token, job_id, code="model_failed", message="a\0b\udcffc")
    assert read_job(database, job_id).error_message == "a\ufffdb?c"


def test_a_transient_failure_waits_longer_each_time_and_then_fails(database: Database) -> None:
    (job_id,) = add_jobs(database, 1, max_attempts=4)
    waits = []
    for attempt in (1, 2, 3, 4):
        token = claim(database).token
        with database.write() as session:
            assert jobs.fail_or_retry(session, token, job_id, code="flaky", message="Again.")
        job = read_job(database, job_id)
        assert (job.attempts, job.error_code) == (attempt, "flaky")
        if attempt < 4:
            assert job.status == QUEUED
            assert claim_nothing(database)
            assert job.started_at is not None
            waits.append((job.available_at - job.started_at).total_seconds())
            change(database, job_id, available_at=db_now())
    for waited_s, delay_s in zip(waits, jobs.RETRY_DELAYS_S, strict=True):
        assert delay_s <= waited_s + 0.01 < 4 * delay_s
    assert job.status == FAILED
    assert claim_nothing(database)


def test_a_new_claim_forgets_the_old_error(database: Database) -> None:
    (job_id,) = add_jobs(database, 1, error_code="flaky", error_message="Again.", attempts=1)
    claim(database)
    job = read_job(database, job_id)
    assert (job.error_code, job.error_message) == (None, None)


def test_give_back_counts_no_attempt_and_keeps_the_place_in_the_queue(database: Database) -> None:
    first, second = add_jobs(database, 2)
    token = claim(database).token
    with database.write() as session:
        assert jobs.give_back(session, token, [first]) == {first}
        assert jobs.give_back(session, token, []) == set()
    assert read_job(database, first).attempts == 0
    assert read_job(database, second).status == RUNNING
    (later,) = add_jobs(database, 1)
    assert ids(claim(database)) == [first, later]


# --- leases -------------------------------------------------------------------------------


def test_an_expired_lease_puts_the_job_back_and_fences_the_late_finisher(
    database: Database,
) -> None:
    (job_id,) = add_jobs(database, 1)
    late = claim(database, lease_s=-1).token
    with database.write() as session:
        assert jobs.expire_leases(session) == ({job_id}, set())
    with database.write() as session:
        assert jobs.succeed(session, late, {job_id: TEXT}, model_revision="late") == set()
        assert jobs.renew(session, [late], lease_s=60) == 0
        assert not jobs.give_back(session, late, [job_id])
    job = read_job(database, job_id)
    assert (job.status, job.attempts, job.captions) == (QUEUED, 1, [])
    assert ids(claim(database)) == [job_id]


def test_a_lease_that_has_run_out_but_was_not_swept_still_saves(database: Database) -> None:
    (job_id,) = add_jobs(database, 1)
    token = claim(database, lease_s=-1).token
    with database.write() as session:
        assert jobs.succeed(session, token, {job_id: TEXT}, model_revision="r") == {job_id}
    with database.write() as session:
        assert jobs.expire_leases(session) == (set(), set())


def test_a_job_that_kills_every_worker_ends_as_crashed(database: Database) -> None:
    (poison,) = add_jobs(database, 1)
    for _ in range(2):
        claim(database, lease_s=-1)
        with database.write() as session:
            assert jobs.expire_leases(session) == ({poison}, set())
    claim(database, lease_s=-1)
    with database.write() as session:
        assert jobs.expire_leases(session) == (set(), {poison})
    job = read_job(database, poison)
    assert (job.status, job.error_code, job.attempts) == (FAILED, "crashed", 3)
    assert claim_nothing(database)


def test_the_others_of_a_poisoned_batch_lose_one_attempt_at_most(database: Database) -> None:
    poison, *others = add_jobs(database, 4)
    rounds = 0
    while not nothing_waits(database):
        rounds += 1
        assert rounds < 20
        claimed = claim(database, lease_s=-1)
        if poison in ids(claimed):
            with database.write() as session:
                jobs.expire_leases(session)  # the worker died
            continue
        with database.write() as session:
            done = {job_id: TEXT for job_id in ids(claimed)}
            jobs.succeed(session, claimed.token, done, model_revision="r")
    assert read_job(database, poison).error_code == "crashed"
    for job_id in others:
        job = read_job(database, job_id)
        assert (job.status, job.attempts) == (SUCCEEDED, 2)


def nothing_waits(database: Database) -> bool:
    with database.read() as session:
        return session.scalar(select(func.count()).where(Job.status == QUEUED)) == 0


def test_expiry_leaves_living_leases_alone(database: Database) -> None:
    add_jobs(database, 3)
    claim(database, lease_s=60)
    with database.write() as session:
        assert jobs.expire_leases(session) == (set(), set())


# --- what people may do -------------------------------------------------------------------


def test_retry_starts_over(database: Database) -> None:
    (job_id,) = add_jobs(
        database, 1, status=FAILED, attempts=3, error_code="crashed", error_message="Died."
    )
    with database.write() as session:
        session.execute(update(Job).values(available_at=db_now(3600)))
    with database.write() as session:
        jobs.retry(session, job_id)
    job = read_job(database, job_id)
    assert (job.status, job.attempts, job.finished_at) == (QUEUED, 0, None)
    assert (job.error_code, job.error_message) == (None, None)
    assert ids(claim(database)) == [job_id]


@pytest.mark.parametrize("status", [SUCCEEDED, FAILED, CANCELLED])
def test_what_has_ended_cannot_be_cancelled(database: Database, status: JobStatus) -> None:
    (job_id,) = add_jobs(database, 1, status=status)
    with database.write() as session, pytest.raises(WrongState, match=status.value):
        jobs.cancel(session, job_id)


def test_captions_go_with_their_job(database: Database) -> None:
    (job_id,) = add_jobs(database, 1)
    token = claim(database).token
    with database.write() as session:
        jobs.succeed(session, token, {job_id: TEXT}, model_revision="r")
    with database.write() as session:
        session.delete(session.get_one(Job, job_id))
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Caption)) == 0
