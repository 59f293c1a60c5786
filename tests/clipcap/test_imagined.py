"""Embeddings imagined for texts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from clipcap import encoder as encoders
from clipcap.data import Example
from clipcap.data.pictures import ImageFile
from clipcap.encoder import Encoder
from clipcap.training.imagined import (
    BlurredEmbeddings,
    ImaginedEmbeddings,
    embed_together,
    fit,
)
from clipcap.training.text_only import embed_captions
from tests.tiny_bundle import READING_TOWER, build_tiny_tower

CAPTIONS = [
    f"{number} {colour} {thing}"
    for number in ("one", "two", "three")
    for colour in ("red", "blue", "green", "black")
    for thing in ("dog", "cat", "boat")
]
PICTURE = ImageFile(Path("never-opened.jpg"), "never-opened.jpg")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return encoders.load_folder(
        build_tiny_tower(tmp_path_factory.mktemp("made") / "tower", READING_TOWER)
    )


def test_a_linear_map_is_found() -> None:
    torch.manual_seed(0)
    given, wanted = torch.randn(500, 4), torch.randn(4, 4)
    torch.testing.assert_close(fit(given, given @ wanted), wanted, rtol=0, atol=0.01)


def test_a_text_is_given_embeddings_as_its_images_have_them(encoder: Encoder) -> None:
    """Images lie where a map of their captions says, and to either side of it."""
    torch.manual_seed(0)
    texts = embed_captions(encoder, CAPTIONS)
    there, aside = torch.randn(texts.shape[1], texts.shape[1]), torch.randn(texts.shape[1])
    examples = [Example(PICTURE, (caption,)) for caption in CAPTIONS]
    views = torch.stack([texts @ there + aside, texts @ there - aside], dim=1)  # (I, 2, D)
    imagined = ImaginedEmbeddings(encoder, [("two red dogs",)], examples, views)
    drawn = imagined.draw(torch.zeros(4000, dtype=torch.long))
    expected = embed_captions(encoder, ["two red dogs"]) @ there
    near = aside.norm() / 4
    assert (drawn.mean(dim=0) - expected).norm() < near
    sides = torch.minimum(
        (drawn - expected - aside).norm(dim=1), (drawn - expected + aside).norm(dim=1)
    )
    assert sides.mean() < near
    assert (drawn[0] - drawn[1:20]).norm(dim=1).max() > near  # not always the same


def test_captions_of_one_image_say_together_where_it_is(encoder: Encoder) -> None:
    each = embed_captions(encoder, ["two red dogs", "one black cat", "a boat"])
    together = embed_together(encoder, [("two red dogs", "one black cat"), ("a boat",)])
    mean = torch.nn.functional.normalize(each[:2].sum(dim=0), dim=0)
    torch.testing.assert_close(together, torch.stack([mean, each[2]]))


def test_a_blurred_embedding_has_a_share_of_what_another_image_has_beside_its_captions(
    encoder: Encoder,
) -> None:
    torch.manual_seed(0)
    texts = embed_captions(encoder, CAPTIONS)
    there = torch.randn(texts.shape[1], texts.shape[1])
    beside = torch.randn(len(texts), texts.shape[1])
    images = (texts @ there + beside)[:, None]  # (I, 1, D)
    examples = [Example(PICTURE, (caption,)) for caption in CAPTIONS]
    items = torch.zeros(500, dtype=torch.long)
    moved = []
    for share in (0.0, 0.5, 1.0):
        drawn = BlurredEmbeddings(encoder, examples, images, share).draw(items)
        torch.testing.assert_close(drawn.norm(dim=1), images[0].norm().expand(500))
        moved.append((drawn - images[0]).norm(dim=1).mean())
    assert moved[0] < 1e-4 < moved[1] < moved[2]
    assert len(torch.unique(drawn, dim=0)) > len(CAPTIONS) / 2  # another image each time
