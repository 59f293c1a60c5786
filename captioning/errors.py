"""Everything that can go wrong in the domain, as exceptions with stable codes.

    CaptioningError
    ├── SettingsError              a setting is missing, unknown or wrong
    ├── InvalidRequest             the request itself cannot be carried out
    │   ├── NoImage
    │   ├── TooManyImages
    │   ├── UnknownModel
    │   ├── InvalidOption
    │   ├── WebhookUrlRefused
    │   └── IdempotencyKeyReused
    ├── ImageRejected              one upload cannot be captioned
    │   ├── ImageEmpty
    │   ├── ImageTooLarge
    │   ├── UnsupportedImageType
    │   ├── ImageTooManyPixels
    │   ├── ImageUnreadable
    │   ├── ImageUrlRefused        its address is not one to fetch
    │   └── ImageUnfetchable
    ├── NotFound                   JobNotFound, BatchNotFound, ImageNotFound,
    │                              DeliveryNotFound, KeyNotFound
    ├── AccessDenied               who asks has shown no key that is in force
    │   ├── KeyRequired
    │   └── KeyRefused
    ├── LimitReached               so much is not allowed in so short a time
    │   ├── RateLimited
    │   └── QuotaExceeded
    ├── WrongState                 the job is not in a state that allows this
    ├── ChangedSince               it is no longer as whoever changes it has read it
    └── Unavailable                a part is away, or has no room for more
        ├── DatabaseUnavailable
        ├── StorageUnavailable
        │   └── StorageFull
        ├── QueueFull
        └── UploadTooSlow

The first line of a docstring is the title that people see; the message says what happened
this time. Nothing here knows of HTTP: web/problems.py holds the only table of statuses.
"""

from __future__ import annotations

from typing import ClassVar


class CaptioningError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.title())

    @classmethod
    def title(cls) -> str:
        return (cls.__doc__ or "").strip().splitlines()[0].rstrip(".")


class SettingsError(CaptioningError):
    """A setting is missing, unknown or wrong."""

    code = "settings"


class InvalidRequest(CaptioningError):
    """The request cannot be carried out."""

    code = "invalid_request"


class NoImage(InvalidRequest):
    """No image was sent."""

    code = "no_image"


class TooManyImages(InvalidRequest):
    """Too many images in one upload."""

    code = "too_many_images"


class UnknownModel(InvalidRequest):
    """There is no model of that name."""

    code = "unknown_model"


class InvalidOption(InvalidRequest):
    """An option has a value that is not allowed."""

    code = "invalid_option"


class IdempotencyKeyReused(InvalidRequest):
    """The idempotency key belongs to another request."""

    code = "idempotency_key_reused"


class WebhookUrlRefused(InvalidRequest):
    """No message may be sent to this address."""

    code = "webhook_url_refused"


class ImageRejected(CaptioningError):
    """The image cannot be captioned."""

    code = "image_rejected"


class ImageEmpty(ImageRejected):
    """The file is empty."""

    code = "image_empty"


class ImageTooLarge(ImageRejected):
    """The file is too large."""

    code = "image_too_large"


class UnsupportedImageType(ImageRejected):
    """The file is not an image of a supported type."""

    code = "unsupported_image_type"


class ImageTooManyPixels(ImageRejected):
    """The image has too many pixels."""

    code = "image_too_many_pixels"


class ImageUnreadable(ImageRejected):
    """The image is damaged and cannot be read."""

    code = "image_unreadable"


class ImageUrlRefused(ImageRejected):
    """The image's address may not be fetched."""

    code = "image_url_refused"


class ImageUnfetchable(ImageRejected):
    """The image cannot be fetched from its address."""

    code = "image_unfetchable"


class NotFound(CaptioningError):
    """There is no such thing."""

    code = "not_found"


class JobNotFound(NotFound):
    """There is no such job."""

    code = "job_not_found"


class BatchNotFound(NotFound):
    """There is no such batch."""

    code = "batch_not_found"


class ImageNotFound(NotFound):
    """There is no such image."""

    code = "image_not_found"


class DeliveryNotFound(NotFound):
    """There is no such delivery."""

    code = "delivery_not_found"


class KeyNotFound(NotFound):
    """There is no such access key."""

    code = "key_not_found"


class AccessDenied(CaptioningError):
    """Access is denied."""

    code = "access_denied"


class KeyRequired(AccessDenied):
    """An access key is needed."""

    code = "key_required"


class KeyRefused(AccessDenied):
    """The access key is not accepted."""

    code = "key_refused"


class LimitReached(CaptioningError):
    """A limit has been reached."""

    code = "limit_reached"

    def __init__(self, message: str | None = None, retry_after_s: int = 60) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RateLimited(LimitReached):
    """Too many requests in too short a time."""

    code = "rate_limited"


class QuotaExceeded(LimitReached):
    """The images of this day are used up."""

    code = "quota_exceeded"


class WrongState(CaptioningError):
    """The job is not in a state that allows this."""

    code = "wrong_state"


class ChangedSince(CaptioningError):
    """It has changed since it was read."""

    code = "changed_since"


class Unavailable(CaptioningError):
    """A part of the service cannot be reached just now."""

    code = "unavailable"


class StorageUnavailable(Unavailable):
    """The image store cannot be reached."""

    code = "storage_unavailable"


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached."""

    code = "database_unavailable"


class StorageFull(StorageUnavailable):
    """There is no room for more images."""

    code = "storage_full"


class QueueFull(Unavailable):
    """Too many photographs are waiting already."""

    code = "queue_full"


class UploadTooSlow(Unavailable):
    """Storing the upload took too long."""

    code = "upload_too_slow"
