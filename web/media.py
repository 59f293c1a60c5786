"""The stored photographs and thumbnails. They never change, so browsers may keep them."""

from __future__ import annotations

from apiflask import APIBlueprint, APIFlask
from flask import Response, request
from flask.typing import ResponseReturnValue

from captioning import queries
from web.current import queue

MAX_AGE_S = 30 * 24 * 3600

bp = APIBlueprint("media", __name__, enable_openapi=False)


def init_app(app: APIFlask) -> None:
    app.register_blueprint(bp)


@bp.get("/images/<image_id>.jpg")
def image(image_id: str) -> ResponseReturnValue:
    with queue().database.read() as session:
        key = queries.get_image(session, image_id).key
    return _jpeg(key)


@bp.get("/thumbnails/<image_id>.jpg")
def thumbnail(image_id: str) -> ResponseReturnValue:
    with queue().database.read() as session:
        key = queries.get_image(session, image_id).thumbnail_key
    return _jpeg(key)


def _jpeg(key: str) -> ResponseReturnValue:
    """Bytes are read only where the browser has not kept them."""
    response = Response(mimetype="image/jpeg")
    response.set_etag(key)
    response.headers["Cache-Control"] = f"private, max-age={MAX_AGE_S}, immutable"
    if request.if_none_match.contains(key):
        response.status_code = 304
    else:
        response.data = queue().storage.get(key)
    return response
