"""ClipCap: CLIP image embedding → mapping network → prefix of GPT-2 → caption.

from clipcap import Captioner

captioner = Captioner.load("bundled")
[[caption]] = captioner.caption([image])
print(caption.text, caption.mean_log_probability)
"""

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


def __getattr__(name: str) -> Any:
    """Import the captioner, and torch with it, only for those who ask: `clipcap --help` and a
    broken command line need not wait five seconds."""
    if name in ("Caption", "Captioner"):
        from clipcap import captioner

        return getattr(captioner, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
