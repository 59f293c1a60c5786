"""The blueprint that the modules of pages add their routes to."""

from __future__ import annotations

from apiflask import APIBlueprint

bp = APIBlueprint("pages", __name__, enable_openapi=False)
