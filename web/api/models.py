"""Which models may be asked for."""

from __future__ import annotations

from apiflask import APIBlueprint

from captioning import queries
from web.api.schemas import ModelBody, ModelsBody
from web.current import queue

bp = APIBlueprint("models", __name__, tag="Models")


@bp.get("/models")
@bp.output(ModelsBody)
@bp.doc(responses=[503])
def index() -> ModelsBody:
    """List the models on offer."""
    settings = queue().settings
    with queue().database.read() as session:
        served = queries.served_models(session)
    models = [
        ModelBody(name=name, default=name == settings.default_model, available=name in served)
        for name in settings.models
    ]
    return ModelsBody(models=models)
