"""ClipCap: CLIP image embedding → mapping network → prefix of GPT-2 → caption.

from clipcap import Captioner

captioner = Captioner.load("bundled")
[[caption]] = captioner.caption([image])
print(caption.text, caption.mean_log_probability)
"""

from clipcap.captioner import Caption, Captioner
from clipcap.errors import BundleError, ClipCapError, DataError, OptionsError, TrainingError
from clipcap.options import DecodingOptions

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
