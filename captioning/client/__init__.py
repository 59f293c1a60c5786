"""The service from any Python program, over HTTP:

from captioning import Client

with Client("http://127.0.0.1:8000") as client:
    print(client.caption("photo.jpg").text)
"""

from captioning.client.answers import Batch, Caption, Image, Job, Outcome, Progress, Standing
from captioning.client.asynchronous import AsyncClient
from captioning.client.errors import CaptioningFailed, RequestRefused, ServiceUnreachable, TimedOut
from captioning.client.synchronous import Client

__all__ = [
    "Client",
    "AsyncClient",
    "Job",
    "Caption",
    "Image",
    "Standing",
    "Batch",
    "Outcome",
    "Progress",
    "CaptioningFailed",
    "RequestRefused",
    "ServiceUnreachable",
    "TimedOut",
]
