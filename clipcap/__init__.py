"""ClipCap: CLIP image embedding → mapping network → prefix of GPT-2 → caption.

from clipcap import Captioner

captioner = Captioner.load("bundled")
[[caption]] = captioner.caption([image])
print(caption.text, caption.mean_log_probability)
"""

import os
from typing import TYPE_CHECKING, Any

from clipcap.errors import BundleError, ClipCapError, DataError, OptionsError, TrainingError
from clipcap.options import DecodingOptions

if TYPE_CHECKING:
    from clipcap.captioner import Caption, Captioner

__all__ = [
    "BundleError",
    "Caption",
    "Captioner",
    "ClipCapError",
    "DataError",
    "DecodingOptions",
    "OptionsError",
    "TrainingError",
]

# How often a thread of OpenMP looks for its next piece of work before it sleeps. At libgomp's own
# 300,000, two processes on the same cores keep each other waiting, and take fifty times as long
# instead of twice; at this, two and a half times. Alone it costs a tenth of the speed: who has
# cores to spare may set another. Read when torch is loaded.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def __getattr__(name: str) -> Any:
    """Import the captioner, and torch with it, only for those who ask: `clipcap --help` and a
    broken command line need not wait five seconds."""
    if name in ("Caption", "Captioner"):
        from clipcap import captioner

        return getattr(captioner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
