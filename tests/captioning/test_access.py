"""Access keys, and that each sees what is its own, on both databases."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.orm import aliased

from captioning import access, finding, idempotency, jobs, queries
from captioning.access import EVERYBODY, STRANGER, Caller
from captioning.database import Database, db_now
from captioning.errors import (
    InvalidOption,
    JobNotFound,
    KeyNotFound,
    KeyRefused,
    SettingsError,
)
from captioning.idempotency import Once
from captioning.models import Base, Image, Job, JobStatus, Role, SignIn
from captioning.queue import Queue, Upload
from captioning.settings import Settings
from tests.factories import add_job, add_jobs, photo


def make(database: Database, name: str = "anna", role: Role = Role.USER) -> str:
    with database.write() as session:
        return access.create_key(session, name, role)


def caller(database: Database, secret: str) -> Caller:
    with database.read() as session:
        return access.caller_of_key(session, secret)


def test_a_key_lets_its_holder_in_under_its_name(database: Database) -> None:
    user, admin = make(database), make(database, "boss", Role.ADMIN)
    assert user != admin
    assert (caller(database, user).name, caller(database, user).sees_all) == ("anna", False)
    assert (caller(database, admin).name, caller(database, admin).sees_all) == ("boss", True)


def test_no_secret_is_kept(database: Database) -> None:
    secret = make(database)
    with database.write() as session:
        token = access.sign_in(session, secret)
    with database.read() as session:
        for table in ("access_key", "sign_in"):
            (row,) = session.execute(text(f"SELECT * FROM {table}")).all()  # noqa: S608
            assert secret not in str(row)
            assert secret.removeprefix("cap_") not in str(row)
            assert token not in str(row)


@pytest.mark.parametrize("wrong", ["", "cap_", "cap_" + "x" * 43, "\0", "ümlaut", "\udcff"])
def test_another_key_lets_nobody_in(database: Database, wrong: str) -> None:
    make(database)
    with pytest.raises(KeyRefused):
        caller(database, wrong)


def test_a_revoked_key_lets_nobody_in_nor_do_its_browsers(database: Database) -> None:
    secret, other = make(database), make(database, "other")
    with database.write() as session:
        token, others = access.sign_in(session, secret), access.sign_in(session, other)
        assert access.caller_of_sign_in(session, token).name == "anna"
    with database.write() as session:
        access.revoke_key(session, "anna")
    with pytest.raises(KeyRefused):
        caller(database, secret)
    with database.write() as session:
        with pytest.raises(KeyRefused):
            access.caller_of_sign_in(session, token)
        with pytest.raises(KeyRefused):
            access.sign_in(session, secret)
        assert access.caller_of_sign_in(session, others).name == "other"
    with pytest.raises(KeyNotFound), database.write() as session:
        access.revoke_key(session, "anna")


def test_a_name_is_free_again_once_its_key_is_revoked(database: Database) -> None:
    make(database)
    with pytest.raises(InvalidOption, match="already"):
        make(database)
    with database.write() as session:
        first = access.revoke_key(session, "anna")
    make(database)
    with database.write() as session:
        second = access.revoke_key(session, "anna")
        assert [key.id for key in access.list_keys(session)] == [first.id, second.id]


@pytest.mark.parametrize("name", ["", " ", "a\nb", " anna", "x" * 101])
def test_a_name_that_cannot_be_shown_is_refused(database: Database, name: str) -> None:
    with pytest.raises(InvalidOption):
        make(database, name)


def test_a_browser_is_signed_out_by_itself_and_after_its_time(database: Database) -> None:
    secret = make(database)
    with database.write() as session:
        first, second = (access.sign_in(session, secret) for _ in range(2))
        access.sign_out(session, first)
        with pytest.raises(KeyRefused):
            access.caller_of_sign_in(session, first)
        access.caller_of_sign_in(session, second)
        session.execute(update(SignIn).values(expires_at=db_now(-1)))
        with pytest.raises(KeyRefused):
            access.caller_of_sign_in(session, second)
        access.forget_old(session)
        assert session.scalar(select(func.count()).select_from(SignIn)) == 0


ANNA = Caller("anna")


@pytest.fixture
def two_owners(database: Database) -> tuple[str, str]:
    """A job of anna's and one of bert's."""
    (annas,) = add_jobs(database, 1, owner="anna")
    (berts,) = add_jobs(database, 1, owner="bert")
    with database.write() as session:
        for job_id, owner in ((annas, "anna"), (berts, "bert")):
            image_id = session.scalar(select(Job.image_id).where(Job.id == job_id))
            session.execute(update(Image).where(Image.id == image_id).values(owner=owner))
    return annas, berts


def test_every_table_with_an_owner_is_narrowed(database: Database) -> None:
    owned = {mapper.class_.__name__ for mapper in Base.registry.mappers if "owner" in mapper.c}
    assert {"Job", "Batch", "Image"} <= owned
    assert len(access._own_rows("anna")) == len(owned)


def test_reading_finds_own_rows_only_however_it_is_asked(
    database: Database, two_owners: tuple[str, str]
) -> None:
    annas, berts = two_owners
    other = aliased(Job)
    head = select(Job.id).limit(9).subquery()
    with ANNA.seen(database).read() as session:
        assert session.get(Job, annas) is not None
        assert session.get(Job, berts) is None
        assert session.scalars(select(Job.id)).all() == [annas]
        assert session.scalars(select(other.id)).all() == [annas]
        assert session.scalars(select(Image)).one().owner == "anna"
        assert session.scalar(select(func.count()).select_from(Job)) == 1
        assert session.scalar(select(func.count()).select_from(head)) == 1
        assert not session.scalar(select(select(Job.id).where(Job.id == berts).exists()))
        assert [job.id for job in finding.list_jobs(session, limit=9)] == [annas]
        assert session.scalars(select(Image.id).join(Job, Job.image_id == Image.id)).one()


def test_changing_touches_own_rows_only(database: Database, two_owners: tuple[str, str]) -> None:
    annas, berts = two_owners
    with ANNA.seen(database).write() as session:
        with pytest.raises(JobNotFound):
            jobs.cancel(session, berts)
        changed = session.scalars(update(Job).values(attempts=7).returning(Job.id)).all()
        assert changed == [annas]
        assert session.execute(delete(Job).where(Job.id == berts)).rowcount == 0  # type: ignore[attr-defined]
        jobs.cancel(session, annas)
    with database.read() as session:
        assert queries.get_job(session, berts).status == JobStatus.QUEUED
        assert queries.get_job(session, annas).status == JobStatus.CANCELLED


def test_who_sees_all_sees_all_and_a_stranger_nothing(
    database: Database, two_owners: tuple[str, str]
) -> None:
    add_jobs(database, 1)
    for seeing, count in ((EVERYBODY, 3), (Caller("boss", sees_all=True), 3), (STRANGER, 0)):
        with seeing.seen(database).read() as session:
            assert session.scalar(select(func.count()).select_from(Job)) == count


@pytest.fixture
def annas_queue(queue: Queue) -> Queue:
    return queue.seen_by(ANNA)


def test_what_is_handed_in_belongs_to_who_did(queue: Queue, annas_queue: Queue) -> None:
    job = annas_queue.submit(photo()).read()
    batch = annas_queue.submit_many(
        [Upload("a.jpg", photo()), Upload("b", b"")], annas_queue.options(None, "beam", 1)
    )
    assert (job.owner, job.image.owner) == ("anna", "anna")
    assert [item.index for item in batch.rejected] == [1]
    with queue.seen_by(Caller("bert")).database.read() as session:
        assert finding.list_jobs(session, limit=9) == []
    with queue.database.read() as session:
        assert queries.get_batch(session, batch.batch_id).owner == "anna"
        assert len(finding.list_jobs(session, limit=9)) == 2


def test_two_owners_may_choose_the_same_idempotency_key(queue: Queue, annas_queue: Queue) -> None:
    once = Once("k1", "fingerprint")
    berts_queue = queue.seen_by(Caller("bert"))
    ids = [seen.submit(photo(), once=once).id for seen in (annas_queue, berts_queue, queue)]
    assert len(set(ids)) == 3
    again = [seen.submit(photo(), once=once).id for seen in (annas_queue, berts_queue, queue)]
    assert again == ids


def test_a_key_of_nobodys_is_kept_as_it_is(database: Database) -> None:
    """The release before looks for it under that name."""
    with database.write() as session:
        idempotency.remember(session, Once("k1", "f").of(""), "0" * 32)
        assert idempotency.recall(session, Once("k1", "f")) == "0" * 32


def test_the_queue_is_full_for_an_owner_whoever_filled_it(queue: Queue, annas_queue: Queue) -> None:
    """Limits of the whole are counted over the whole, and rounds go over all owners."""
    with queue.database.write() as session:
        add_job(session, owner="bert", place=40)
    assert annas_queue.submit(photo()).read().place == 40


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.8.8.8"])
def test_open_access_is_for_loopback(host: str) -> None:
    access.require_keys_beyond_loopback(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "::ffff:192.0.2.7"])  # noqa: S104
def test_beyond_loopback_there_must_be_keys(host: str) -> None:
    with pytest.raises(SettingsError, match="CAPTIONING_ACCESS=keys"):
        access.require_keys_beyond_loopback(Settings(host=host))
    access.require_keys_beyond_loopback(Settings(host=host, access="keys"))
