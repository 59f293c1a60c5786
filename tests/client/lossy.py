"""A way to the service on which every request arrives and some answers do not."""

from __future__ import annotations

import httpx


class LosesAnswers(httpx.HTTPTransport):
    """The first answer of a method is lost on the way."""

    def __init__(self, method: str) -> None:
        super().__init__()
        self.method = method
        self.lost = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        if request.method == self.method and not self.lost:
            self.lost += 1
            response.close()
            raise httpx.ReadError("the answer is lost")
        return response
