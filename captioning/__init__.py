"""The service's domain, shared by web and worker, and the two ways in from Python.

Over HTTP, from anywhere:

from captioning import Client

with Client("http://127.0.0.1:8000") as client:
    print(client.caption("photo.jpg").text)

Inside the cluster, with its database, broker and image store:

from captioning import connect

queue = connect()
job = queue.submit("photo.jpg", num_captions=3)
job.wait(timeout_s=30)
print(job.captions)
"""

from captioning.client import AsyncClient, Client
from captioning.queue import JobHandle, Queue, connect

__all__ = ["Client", "AsyncClient", "JobHandle", "Queue", "connect"]
