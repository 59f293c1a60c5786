"""The WSGI application for a server. The only module that reads the environment on import."""

from __future__ import annotations

from captioning.settings import load_settings
from web import create_app

app = create_app(load_settings())
