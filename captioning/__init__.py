"""The service's domain, shared by web and worker, and the way in from Python:

from captioning import connect

queue = connect()
job = queue.submit("photo.jpg", num_captions=3)
job.wait(timeout_s=30)
print(job.captions)
"""

from captioning.queue import JobHandle, Queue, connect

__all__ = ["JobHandle", "Queue", "connect"]
