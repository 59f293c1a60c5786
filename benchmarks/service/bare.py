"""`python -m benchmarks.service.bare`: a Flask application of one JSON route, in the very server
that the service runs in, for comparison."""

from __future__ import annotations

import sys

from flask import Flask, Response, jsonify

from captioning.settings import load_settings
from web.__main__ import Server, _listen


class BareServer(Server):
    def load(self) -> Flask:
        app = Flask("bare")

        def answer() -> Response:
            return jsonify(id="0" * 32, status="succeeded", caption="A photograph.")

        app.add_url_rule("/healthz", view_func=answer)
        return app


def main() -> None:
    settings = load_settings()
    BareServer(settings, _listen(settings.host, settings.port).detach()).run()


if __name__ == "__main__":
    sys.exit(main())
