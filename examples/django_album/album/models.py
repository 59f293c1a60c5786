from django.db import models


class Photo(models.Model):
    """An uploaded photograph. `job_id` is what the captioning service calls it."""

    file = models.FileField()
    caption = models.TextField(blank=True)
    job_id = models.CharField(max_length=32, blank=True)
