"""Handing photographs in: a bad one spoils no other, and what fails leaves nothing behind."""

from __future__ import annotations

import io
import itertools
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage
from sqlalchemy import event, func, select
from sqlalchemy.exc import OperationalError

from captioning import connect, jobs, queries
from captioning.broker import queue_name
from captioning.database import Database
from captioning.errors import (
    DatabaseUnavailable,
    ImageNotFound,
    ImageRejected,
    ImageUnreadable,
    InvalidOption,
    NoImage,
    QueueFull,
    StorageFull,
    StorageUnavailable,
    TooManyImages,
    UnknownModel,
    UnsupportedImageType,
)
from captioning.jobs import CaptionText, JobOptions
from captioning.migrate import migrate
from captioning.models import Base, Batch, Image, Job, JobStatus
from captioning.queue import AllRejected, Queue, Upload
from captioning.settings import Settings
from tests import servers
from tests.factories import MODEL, encoded, photo
from tests.servers import Valkey

OPTIONS = JobOptions(MODEL)
NOT_AN_IMAGE = b"just a text"
WHOLE = encoded(PILImage.effect_noise((300, 200), 100), "JPEG")
CUT_OFF = WHOLE[: len(WHOLE) // 2]


def uploads(count: int) -> list[Upload]:
    return [Upload(f"{i}.jpg", photo(colour=(i % 256, 9, 9))) for i in range(count)]


def rows(queue: Queue) -> dict[str, int]:
    with queue.database.read() as session:
        return {
            table.__tablename__: session.scalar(select(func.count()).select_from(table)) or 0
            for table in (Batch, Image, Job)
        }


def files(queue: Queue) -> list[str]:
    folder = Path(queue.settings.data_dir) / "storage"
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def rings(valkey: Valkey) -> int:
    with valkey.client as client:
        return int(client.llen(queue_name(MODEL)))  # type: ignore[arg-type]


def nothing_left(queue: Queue) -> bool:
    return rows(queue) == {"batch": 0, "image": 0, "job": 0} and files(queue) == []


def caption_all(queue: Queue, *texts: str) -> None:
    with queue.database.write() as session:
        claim = jobs.claim(session, MODEL, limit=100, lease_s=60)
        assert claim is not None
        captions = {job.id: [CaptionText(text, -1) for text in texts] for job in claim.jobs}
        jobs.succeed(session, claim.token, captions, model_revision="r")


# --- one photograph -----------------------------------------------------------------------


def test_a_photograph_is_stored_queued_and_rung_for(queue: Queue, valkey: Valkey) -> None:
    handle = queue.submit(photo((300, 200)))
    job = handle.read()
    assert (job.status, job.batch_id, job.model, job.num_captions) == ("queued", None, MODEL, 1)
    assert (job.image.width, job.image.height) == (300, 200)
    assert job.image.stored_at is not None
    for key, side in ((job.image.key, 300), (job.image.thumbnail_key, 300)):
        with PILImage.open(io.BytesIO(queue.storage.get(key))) as image:
            assert image.width == side
    assert rings(valkey) == 1


def test_waiting_ends_with_the_caption(queue: Queue) -> None:
    handle = queue.submit(photo(), num_captions=2)
    assert handle.wait(timeout_s=0) == JobStatus.QUEUED
    assert handle.captions == []
    caption_all(queue, "a dog", "an animal")
    assert handle.wait(timeout_s=30) == JobStatus.SUCCEEDED
    assert handle.captions == ["a dog", "an animal"]


@pytest.mark.parametrize(
    "kind", ["str", "Path", "bytes", "file", "BytesIO", "unnamed", "PIL", "Upload"]
)
def test_a_photograph_may_come_in_many_forms(queue: Queue, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "naïve photo.jpg"
    path.write_bytes(photo((30, 20)))
    with path.open("rb") as file, tempfile.TemporaryFile() as unnamed:
        unnamed.write(path.read_bytes())
        unnamed.seek(0)
        forms: dict[str, Any] = {
            "str": str(path),
            "Path": path,
            "bytes": path.read_bytes(),
            "file": file,
            "BytesIO": io.BytesIO(path.read_bytes()),
            "unnamed": unnamed,
            "Upload": Upload("../naïve photo.jpg", path.read_bytes()),
            "PIL": PILImage.open(io.BytesIO(path.read_bytes())),
        }
        image = queue.submit(forms[kind]).read().image
    named = kind in ("str", "Path", "file", "Upload")
    assert named == (image.filename == "naïve photo.jpg")
    assert (image.width, image.height) == (30, 20)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "F"])
def test_a_pil_image_may_have_any_mode(queue: Queue, mode: str) -> None:
    assert queue.submit(PILImage.new(mode, (30, 20))).read().image.width == 30


def test_a_pil_image_comes_out_upright(queue: Queue) -> None:
    exif = PILImage.Exif()
    exif[0x0112] = 6
    with PILImage.open(io.BytesIO(photo((60, 40), exif=exif.tobytes()))) as lying:
        image = queue.submit(lying).read().image
        assert lying.size == (60, 40)
    assert (image.width, image.height) == (40, 60)


def test_a_large_pil_image_is_not_refused_for_the_size_of_a_file_that_never_was(
    settings: Settings,
) -> None:
    queue = Queue(settings.model_copy(update={"max_image_bytes": 4_000_000}))
    large = PILImage.effect_noise((3000, 2000), 100).convert("RGB")
    assert queue.submit(large).read().image.width == 1024
    queue.close()


def test_a_pil_image_of_a_broken_file_is_unreadable(queue: Queue) -> None:
    broken = PILImage.open(io.BytesIO(CUT_OFF))
    with pytest.raises(ImageUnreadable):
        queue.submit(broken)
    assert nothing_left(queue)


def test_a_file_opened_as_text_is_no_image(queue: Queue, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text("<html>")
    with path.open() as file, pytest.raises(UnsupportedImageType):
        queue.submit(file)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["missing.jpg", "."])
def test_a_path_that_cannot_be_read_is_named(queue: Queue, tmp_path: Path, path: str) -> None:
    with pytest.raises(NoImage, match=str(tmp_path)):
        queue.submit(tmp_path / path)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"model": "gpt-17"}, UnknownModel),
        ({"decoding": "magic"}, InvalidOption),
        ({"num_captions": 0}, InvalidOption),
        ({"num_captions": 6}, InvalidOption),
        ({"decoding": "greedy", "num_captions": 2}, InvalidOption),
        ({"max_words": 0}, InvalidOption),
        ({"max_words": 101}, InvalidOption),
        ({"priority": "urgent"}, InvalidOption),
        ({"owner": "x" * 65}, InvalidOption),
    ],
)
def test_options_are_checked_before_anything_is_stored(
    queue: Queue, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        queue.submit(photo(), **options)
    assert nothing_left(queue)


def test_connect_overrides_the_settings(
    database_url: str, tmp_path: Path, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAPTIONING_DATA_DIR", str(tmp_path))
    queue = connect(database_url, broker=valkey.url, storage=(tmp_path / "elsewhere").as_uri())
    handle = queue.submit(photo())
    assert (tmp_path / "elsewhere" / handle.read().image.key).is_file()
    assert rings(valkey) == 1
    queue.close()


# --- uploads of several -------------------------------------------------------------------


def test_a_bad_file_spoils_no_other(queue: Queue, valkey: Valkey) -> None:
    files_sent = uploads(20)
    for position, data in ((3, b""), (11, NOT_AN_IMAGE), (19, CUT_OFF)):
        files_sent[position] = Upload(f"bad{position}.jpg", data)
    submission = queue.submit_many(files_sent, OPTIONS)
    assert len(submission.job_ids) == 17
    assert [(r.filename, r.code) for r in submission.rejected] == [
        ("bad3.jpg", "image_empty"),
        ("bad11.jpg", "unsupported_image_type"),
        ("bad19.jpg", "image_unreadable"),
    ]
    with queue.database.read() as session:
        batch = queries.get_batch(session, submission.batch_id)
        kept = queries.batch_jobs(session, submission.batch_id)
    assert [entry["filename"] for entry in batch.rejected] == ["bad3.jpg", "bad11.jpg", "bad19.jpg"]
    assert tuple(job.id for job in kept) == submission.job_ids
    good = [upload.filename for upload in files_sent if not upload.filename.startswith("bad")]
    assert [job.image.filename for job in kept] == good
    assert rings(valkey) == 5  # 17 jobs in micro-batches of 4
    assert len(files(queue)) == 34


def test_a_hundred_photographs_are_one_upload_in_order(queue: Queue) -> None:
    submission = queue.submit_many(uploads(100), OPTIONS)
    with queue.database.read() as session:
        kept = queries.batch_jobs(session, submission.batch_id)
        progress = queries.batch_progress(session, submission.batch_id)
    assert [job.image.filename for job in kept] == [f"{i}.jpg" for i in range(100)]
    assert (progress.total, progress.finished, progress.done) == (100, 0, False)


def test_one_photograph_too_many_refuses_the_upload(queue: Queue) -> None:
    with pytest.raises(TooManyImages, match="100"):
        queue.submit_many(uploads(101), OPTIONS)
    assert nothing_left(queue)


def test_uploads_are_read_one_at_a_time_and_no_further_than_allowed(queue: Queue) -> None:
    read: list[int] = []

    def endless() -> Iterator[Upload]:
        while True:
            read.append(len(read))
            yield Upload("x.jpg", NOT_AN_IMAGE)

    with pytest.raises(TooManyImages):
        queue.submit_many(endless(), OPTIONS)
    assert len(read) == 101


def test_no_file_at_all_is_no_image(queue: Queue) -> None:
    with pytest.raises(NoImage):
        queue.submit_many([], OPTIONS)


def test_when_no_file_is_good_nothing_is_stored(queue: Queue, valkey: Valkey) -> None:
    with pytest.raises(AllRejected) as caught:
        queue.submit_many([Upload("a.txt", NOT_AN_IMAGE), Upload("b.jpg", b"")], OPTIONS)
    assert [r.code for r in caught.value.rejected] == ["unsupported_image_type", "image_empty"]
    assert isinstance(caught.value, ImageRejected)
    assert nothing_left(queue)
    assert rings(valkey) == 0


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("photo.jpg", "photo.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\beach.png", "beach.png"),
        ("/", "photograph"),
        ("", "photograph"),
        ("a\x00b\nc\x1b[31m.jpg", "abc[31m.jpg"),
        ("gpj.\u202eexe.jpg", "gpj.exe.jpg"),
        ("\udcff\udc80.jpg", ".jpg"),
        ("été 日本 🐕.jpg", "été 日本 🐕.jpg"),
        ("x" * 5000 + ".jpg", "x" * 255),
        ("<script>alert(1)<script>", "<script>alert(1)<script>"),
        ("'; DROP TABLE job; --.jpg", "'; DROP TABLE job; --.jpg"),
    ],
)
def test_hostile_filenames_are_for_display_only(queue: Queue, sent: str, shown: str) -> None:
    files_sent = [Upload(sent, photo()), Upload(sent, NOT_AN_IMAGE)]
    submission = queue.submit_many(files_sent, OPTIONS)
    with queue.database.read() as session:
        job = queries.get_job(session, submission.job_ids[0])
        batch = queries.get_batch(session, submission.batch_id)
    assert job.image.filename == shown
    assert batch.rejected[0]["filename"] == shown
    assert files(queue) == [f"{job.image_id}.jpg"] * 2


# --- what goes wrong ----------------------------------------------------------------------


def test_a_broker_that_is_away_costs_no_upload(settings: Settings, tmp_path: Path) -> None:
    away = settings.model_copy(update={"broker_url": f"redis+socket://{tmp_path}/none.sock"})
    queue = Queue(away)
    started = time.monotonic()
    submission = queue.submit_many(uploads(3), OPTIONS)
    assert time.monotonic() - started < 10
    assert rows(queue) == {"batch": 1, "image": 3, "job": 3}
    assert len(submission.job_ids) == 3
    queue.close()


@pytest.mark.parametrize("fails_at", range(6))
def test_a_store_that_fails_in_the_middle_leaves_nothing(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, fails_at: int, valkey: Valkey
) -> None:
    put, calls = queue.storage.put, itertools.count()

    def put_some(key: str, data: bytes) -> None:
        if next(calls) == fails_at:
            raise StorageUnavailable("The disk is full.")
        put(key, data)

    monkeypatch.setattr(queue.storage, "put", put_some)
    with pytest.raises(StorageUnavailable, match="full"):
        queue.submit_many(uploads(3), OPTIONS)
    assert nothing_left(queue)
    assert rings(valkey) == 0


def test_bytes_outlive_a_commit_that_is_still_under_way(queue: Queue) -> None:
    """The connection broke before the answer, and the server was not yet done: who asks in
    between whether there are jobs is told that there are none."""
    image = Image(filename="0.jpg", sha256="0", width=1, height=1)
    with queue.database.write() as session:
        session.add(image)
    for key in (image.key, image.thumbnail_key):
        queue.storage.put(key, b"bytes")
    discarding = threading.Thread(target=queue.discard, args=([image],))
    with queue.database.write() as session:
        jobs.submit(session, [image], OPTIONS, max_attempts=3)
        discarding.start()
        discarding.join(1)  # where it can, it is done by then
    discarding.join()
    assert rows(queue) == {"batch": 0, "image": 1, "job": 1}
    assert len(files(queue)) == 2


def test_a_store_that_is_away_leaves_nothing(queue: Queue) -> None:
    (Path(queue.settings.data_dir) / "storage").write_text("in the way")
    with pytest.raises(StorageUnavailable):
        queue.submit_many(uploads(3), OPTIONS)
    assert rows(queue) == {"batch": 0, "image": 0, "job": 0}


def test_a_full_queue_refuses_until_jobs_have_been_taken(settings: Settings) -> None:
    queue = Queue(settings.model_copy(update={"max_queued_jobs": 3}))
    queue.submit_many(uploads(2), OPTIONS)
    queue.submit_many(uploads(2), OPTIONS)  # begins below the limit, and is taken whole
    before = rows(queue), files(queue)
    with pytest.raises(QueueFull, match="3"):
        queue.submit_many(uploads(1), OPTIONS)
    with pytest.raises(QueueFull):
        queue.submit(photo())
    assert (rows(queue), files(queue)) == before
    caption_all(queue, "a dog")
    assert queue.submit(photo()).status == JobStatus.QUEUED
    queue.close()


def test_a_disk_that_is_nearly_full_refuses(settings: Settings) -> None:
    queue = Queue(settings.model_copy(update={"min_free_bytes": 10**18}))
    with pytest.raises(StorageFull):
        queue.submit_many(uploads(1), OPTIONS)
    with pytest.raises(StorageFull):
        queue.submit(photo())
    assert nothing_left(queue)
    queue.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_sqlite_that_takes_no_writes_refuses_the_upload(
    settings: Settings, database: Database
) -> None:
    path = database.engine.url.database
    url = f"sqlite:///file:{path}?mode=ro&uri=true"
    queue = Queue(settings.model_copy(update={"database_url": url}))
    with pytest.raises(DatabaseUnavailable, match="readonly"):
        queue.submit_many(uploads(2), OPTIONS)
    assert nothing_left(queue)
    queue.close()


@pytest.mark.slow
def test_a_postgresql_that_has_become_a_standby_refuses_the_upload(tmp_path: Path) -> None:
    """Its clients were not told of the failover."""
    server = servers.PostgreSQL()
    try:
        server.create("captioning")
        queue = Queue(Settings(data_dir=tmp_path, database_url=server.url("captioning")))
        migrate(queue.database)
        server.stop()
        (server.data / "standby.signal").touch()
        server.start()
        assert nothing_left(queue)  # it can be read
        with pytest.raises(DatabaseUnavailable):
            queue.submit_many(uploads(2), OPTIONS)
        assert nothing_left(queue)
        queue.close()
    finally:
        server.close()


def test_a_database_that_fails_at_the_end_leaves_nothing(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OperationalError("INSERT", {}, Exception("database is locked"))

    monkeypatch.setattr("captioning.queue.jobs.submit", fail)
    with pytest.raises(DatabaseUnavailable):
        queue.submit_many(uploads(3), OPTIONS)
    assert nothing_left(queue)


def test_a_commit_that_went_through_without_an_answer_keeps_its_bytes(queue: Queue) -> None:
    """The connection breaks after the server has committed: the jobs are there, the client
    was told of an outage, and the worker must find what it is to caption."""
    commits: list[object] = []

    @event.listens_for(queue.database.engine, "commit")
    def _commit_then_break(connection: Any) -> None:
        commits.append(connection)
        if len(commits) == 2:
            connection.connection.driver_connection.commit()
            raise OperationalError("COMMIT", {}, Exception("connection lost"))

    with pytest.raises(DatabaseUnavailable):
        queue.submit_many(uploads(3), OPTIONS)
    assert rows(queue) == {"batch": 1, "image": 3, "job": 3}
    assert len(files(queue)) == 6


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_locked_database_refuses_the_upload_and_leaves_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    monkeypatch.setattr("captioning.database.BUSY_TIMEOUT_S", 0)
    queue = Queue(settings)
    with database.write() as holding:
        holding.execute(select(1))
        with pytest.raises(DatabaseUnavailable, match="locked"):
            queue.submit_many(uploads(2), OPTIONS)
    assert nothing_left(queue)
    queue.close()


def test_discarding_spares_what_a_job_refers_to(queue: Queue) -> None:
    handle = queue.submit(photo())
    image = handle.read().image
    queue.discard([image])
    assert queue.storage.get(image.key)
    assert handle.read().image_id == image.id


def test_discarding_removes_bytes_and_rows(queue: Queue) -> None:
    with queue.database.write() as session:
        image = Image(filename="x", sha256="0" * 64, width=1, height=1)
        session.add(image)
    queue.storage.put(image.key, b"x")
    queue.discard([image])
    queue.discard([image])
    queue.discard([])
    assert nothing_left(queue)
    with pytest.raises(ImageNotFound):
        queue.storage.get(image.key)


def test_every_table_is_known_to_these_tests() -> None:
    known = {"batch", "image", "job", "caption", "worker", "turn", "idempotency_key"}
    known |= {"webhook_delivery", "webhook_secret"}  # of jobs, in the transactions of jobs
    known |= {"access_key", "sign_in"}  # of people; nothing is handed in with them
    known |= {"usage"}  # of keys that have a quota, in the transactions of jobs
    assert set(Base.metadata.tables) == known
