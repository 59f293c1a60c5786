"""Captioned images from any of the usual formats, as `Example`s. Nothing here is about models."""

from clipcap.data.example import Example, Splits
from clipcap.data.formats import read_evaluation_set, read_splits
from clipcap.data.texts import read_texts

__all__ = ["Example", "Splits", "read_evaluation_set", "read_splits", "read_texts"]
