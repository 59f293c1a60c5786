"""Everything that clipcap refuses, as exceptions whose message names the file and the reason.

ClipCapError
├── BundleError         a bundle is missing, incomplete, foreign or damaged
├── OptionsError        decoding options that make no sense
├── DataError           training or evaluation data that cannot be used
└── TrainingError       a training run that cannot start or go on
"""

from __future__ import annotations


class ClipCapError(Exception):
    """The base of all of clipcap's own errors."""


class BundleError(ClipCapError):
    """A bundle cannot be used."""


class OptionsError(ClipCapError):
    """Decoding options are not valid."""


class DataError(ClipCapError):
    """A data set cannot be used."""


class TrainingError(ClipCapError):
    """A training run cannot start or go on."""
