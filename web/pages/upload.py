"""The first page: photographs are chosen here, and handed to the queue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from http import HTTPStatus

from flask import redirect, render_template, request, send_from_directory, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge

from captioning import images, queries
from captioning.errors import ImageRejected, InvalidOption, InvalidRequest
from captioning.forecast import MOST_COUNTED
from captioning.jobs import JobOptions
from captioning.models import Decoding
from captioning.queue import MAX_WORDS, AllRejected, Rejection, Upload
from web import problems, samples
from web.current import queue, whole_queue
from web.idempotency import new_token, sent_once
from web.intake import fetched, sent_files, uploads
from web.pages.blueprint import bp


@bp.get("/")
def upload() -> ResponseReturnValue:
    return _page()


@bp.post("/")
def submit() -> ResponseReturnValue:
    """Answer 303 to the batch, or the page again with what was wrong with each file."""
    try:
        options = _chosen_options()
        return _to_batch(_photographs(), options)
    except AllRejected as error:
        return _page(str(error), error.rejected), problems.of_domain(error).status
    except (InvalidRequest, ImageRejected) as error:
        return _page(str(error)), problems.of_domain(error).status
    except RequestEntityTooLarge:
        # Too many bytes or too many parts: Werkzeug does not say which.
        limits = queue().settings
        message = (
            f"At most {limits.max_images_per_upload} photographs, and"
            f" {limits.max_upload_bytes / 1e6:.0f} MB, at a time. Send them in parts."
        )
        return _page(message), HTTPStatus.REQUEST_ENTITY_TOO_LARGE


@bp.get("/samples/<name>.jpg")
def sample(name: str) -> ResponseReturnValue:
    return send_from_directory(samples.FOLDER, f"{name}.jpg", max_age=24 * 3600)


@bp.post("/samples/<name>")
def try_sample(name: str) -> ResponseReturnValue:
    photo = Upload(f"{name}.jpg", samples.read(name))
    return _to_batch([photo], queue().options(None, Decoding.BEAM, 1))


def _photographs() -> Iterator[Upload | Rejection]:
    """Fetched and read when they are asked for: not where the form has been sent before. An
    address that cannot be fetched is the error of a form that has nothing else."""
    files = sent_files("images")
    if url := request.form.get("image_url", "").strip():
        try:
            photo: Upload | Rejection = fetched(url)
        except ImageRejected as error:
            if not files:
                raise
            name = Upload(url.partition("?")[0].rstrip("/"), b"").display_name
            photo = Rejection(name, error.code, str(error))
        yield photo
    yield from uploads(files)


def _to_batch(photos: Iterable[Upload | Rejection], options: JobOptions) -> ResponseReturnValue:
    submission = queue().submit_many(photos, options, once=sent_once())
    return redirect(url_for("pages.batch", batch_id=submission.batch_id), HTTPStatus.SEE_OTHER)


def _chosen_options() -> JobOptions:
    form = request.form
    decoding = form.get("decoding", Decoding.BEAM)
    try:
        num_captions = int(form.get("num_captions", 1))
        max_words = int(form["max_words"]) if form.get("max_words") else None
    except ValueError as error:
        raise InvalidOption("The numbers of captions and of words must be numbers.") from error
    if decoding == Decoding.GREEDY:
        num_captions = 1  # as the form says; without JavaScript the choice stays open
    return queue().options(form.get("model"), decoding, num_captions, max_words)


def _page(message: str = "", rejected: Iterable[Rejection] = ()) -> str:
    with queue().database.read() as session:
        served = queries.served_models(session)
    with whole_queue().database.read() as session:
        waiting = queries.count_queued(session, at_most=MOST_COUNTED)
    return render_template(
        "upload.html",
        settings=queue().settings,
        decodings=Decoding,
        samples=samples.SAMPLES,
        max_words=MAX_WORDS,
        served=served,
        waiting=waiting,
        formats=images.FORMATS,
        once=new_token(),
        message=message,
        rejected=rejected,
    )
