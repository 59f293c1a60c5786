"""The album's way to the captioning service."""

import logging

from django.conf import settings

from album.models import Photo
from captioning import Client
from captioning.errors import CaptioningError, JobNotFound

logger = logging.getLogger(__name__)


def ask(photo: Photo) -> None:
    """Hand a photograph in and come back at once. If the service is away, `collect` asks again."""
    try:
        with Client(settings.CAPTIONING_URL, retries=0) as client, photo.file.open() as file:
            job = client.submit(file, max_words=25)
    except CaptioningError as error:
        logger.warning("photo %s: %s", photo.pk, error)
    else:
        Photo.objects.filter(pk=photo.pk).update(job_id=job.id)


def collect(timeout_s: float = 300) -> int:
    """Fetch the captions that are still missing; returns how many came."""
    came = 0
    with Client(settings.CAPTIONING_URL) as client:
        for photo in Photo.objects.filter(caption=""):
            if not photo.job_id:
                ask(photo)
                photo.refresh_from_db()
            if not photo.job_id:
                continue
            try:
                job = client.wait(photo.job_id, timeout_s=timeout_s)
            except JobNotFound:
                Photo.objects.filter(pk=photo.pk).update(job_id="")
                continue
            if job.text:
                came += Photo.objects.filter(pk=photo.pk, caption="").update(caption=job.text)
    return came
