"""Loading the models that this worker serves, once per process."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from PIL import Image

from clipcap import Captioner

logger = logging.getLogger(__name__)

BLANK = Image.new("RGB", (64, 64), "grey")
"""What any model can caption."""


def load(models: Mapping[str, str]) -> dict[str, Captioner]:
    """Load each model and caption a blank image with it, so that the first photograph does
    not pay for lazy initialisation.

    Raises: ClipCapError.
    """
    captioners = {}
    for name, source in models.items():
        started = time.monotonic()
        captioner = Captioner.load(source)
        captioner.caption([BLANK])
        captioners[name] = captioner
        logger.info(
            "model %s (revision %s) ready on %s after %.1f s",
            name,
            captioner.revision,
            captioner.device,
            time.monotonic() - started,
        )
    return captioners
