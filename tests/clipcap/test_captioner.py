"""The captioner as its users see it, on the tiny bundle that names colours."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms import Compose

from clipcap import Captioner, ClipCapError, DecodingOptions
from clipcap import bundle as bundles
from clipcap.encoder import load_folder
from clipcap.search import Vocabulary
from tests.tiny_bundle import COLOURS, build_tiny_tower


@pytest.mark.parametrize("method", ["beam", "greedy"])
def test_it_names_the_colour_of_every_picture(captioner: Captioner, method: str) -> None:
    images = [Image.new("RGB", (64, 48), colour) for colour in COLOURS]
    found = captioner.caption(images, captioner.defaults.override(method=method))
    for colour, (caption,) in zip(COLOURS, found, strict=True):
        assert colour in caption.text
        assert caption.text[0].isupper()
        assert caption.text.endswith(".")
        assert caption.mean_log_probability < 0


def test_the_steps_in_turn_give_what_caption_gives(captioner: Captioner) -> None:
    images = [Image.new("RGB", (30, 30), colour) for colour in ("blue", "yellow")]
    pixels = torch.stack([captioner.preprocess(image) for image in images])
    embedding = captioner.encode(pixels)
    prefix = captioner.prefix(embedding)

    assert pixels.shape == (2, 3, 32, 32)
    assert embedding.shape == (2, 32)
    assert prefix.shape == (2, 2, 32)
    torch.testing.assert_close(embedding.norm(dim=-1), torch.ones(2))
    assert captioner.decode(prefix) == captioner.caption(images)


def test_no_images_give_no_captions(captioner: Captioner) -> None:
    assert captioner.caption([]) == []
    assert captioner.decode(torch.zeros(0, 2, 32)) == []


def test_several_candidates_are_as_many_as_asked_for(captioner: Captioner) -> None:
    (candidates,) = captioner.caption(
        [Image.new("RGB", (9, 9), "red")], DecodingOptions(beam_size=5, num_captions=4)
    )
    assert len({caption.text for caption in candidates}) == 4


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I;16"])
def test_any_mode_of_image_is_captioned(captioner: Captioner, mode: str) -> None:
    (candidates,) = captioner.caption([Image.new(mode, (20, 20))])
    assert candidates[0].text


def test_exif_orientation_is_honoured(captioner: Captioner) -> None:
    """Sideways as stored, upright as marked: the model must see the upright one."""
    upright = Image.new("RGB", (60, 40), "red")
    upright.paste("blue", (0, 0, 60, 20))
    sideways = upright.transpose(Image.Transpose.ROTATE_90)
    sideways.getexif()[0x0112] = 6  # "turn by 90 degrees to the right"

    torch.testing.assert_close(captioner.preprocess(sideways), captioner.preprocess(upright))


def test_the_whole_picture_is_seen_squashed_not_cropped(captioner: Captioner) -> None:
    wide = Image.new("RGB", (200, 20), "white")
    wide.paste("black", (0, 0, 20, 20))  # cropping to the middle would lose it
    assert captioner.preprocess(wide)[:, :, 0].max() < 0
    assert captioner.preprocess(wide)[:, :, -1].min() > 0.9


def test_a_tower_that_crops_does_not_resize_what_it_leaves_out(tmp_path: Path) -> None:
    """A line of 20,000 pixels by 1, resized by its shorter side, would take gigabytes."""
    folder = build_tiny_tower(tmp_path / "tower")
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["resize_mode"] = "shortest"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    encoder = load_folder(folder)
    sizes: list[tuple[int, int]] = []
    shape = encoder.shape
    assert isinstance(shape, Compose)
    shape.transforms.insert(1, lambda image: (sizes.append(image.size), image)[1])
    for size in ((20_000, 1), (3, 9_000), (640, 480)):
        image = Image.new("RGB", size, "red")
        assert encoder.preprocess(image).shape == (3, 32, 32)
    assert sizes == [(10, 1), (3, 30), (640, 480)]


def test_candidates_that_say_the_same_are_one(captioner: Captioner) -> None:
    """Nucleus sampling draws likely captions again and again."""
    options = DecodingOptions("nucleus", num_captions=50, seed=1)
    (candidates,) = captioner.caption([Image.new("RGB", (9, 9), "red")], options)
    assert len({caption.text for caption in candidates}) == len(candidates) < 50


def test_threads_may_share_it(captioner: Captioner) -> None:
    images = [Image.new("RGB", (30, 30), colour) for colour in COLOURS]
    options = [
        captioner.defaults.override(method=method) for method in ("beam", "greedy", "nucleus")
    ]
    alone = [captioner.caption(images, chosen) for chosen in options]
    with ThreadPoolExecutor(6) as threads:
        together = list(threads.map(lambda i: captioner.caption(images, options[i % 3]), range(24)))
    assert together == alone * 8


def test_what_is_closed_captions_no_more(tiny_bundle: Path) -> None:
    image = Image.new("RGB", (30, 30), "red")
    with Captioner.load(tiny_bundle) as captioner:
        assert captioner.caption([image])
    with pytest.raises(ClipCapError, match="closed"):
        captioner.caption([image])


def test_words_and_stops_are_read_from_the_tokenizer(tiny_bundle: Path) -> None:
    decoder = bundles.load(tiny_bundle).decoder
    vocabulary = Vocabulary.of(decoder.tokenizer, ".", size=decoder.model.config.vocab_size)
    for text in ("a red square", "allofitis", "all of it is yellow, or\nso", "magenta"):
        ids = torch.tensor([decoder.encode(text)])
        assert vocabulary.words(ids).tolist() == [len(text.split())]
    stops = vocabulary.stops.nonzero().squeeze(1).tolist()
    assert set(stops) >= {decoder.end_of_text_id, vocabulary.stop_id}
    assert {decoder.text([stop]) for stop in stops} == {"", "."}


@pytest.mark.parametrize(
    "chosen", [{"method": "greedy"}, {}, {"beam_rule": "reference"}, {"method": "nucleus"}]
)
def test_probabilities_that_are_no_numbers_are_no_caption(
    tiny_bundle: Path, chosen: dict[str, str]
) -> None:
    bundle = bundles.load(tiny_bundle)
    with torch.no_grad():
        bundle.decoder.model.transformer.ln_f.weight.fill_(torch.nan)
    captioner = Captioner(bundle)
    with pytest.raises(ClipCapError, match="no numbers"):
        captioner.caption([Image.new("RGB", (9, 9))], captioner.defaults.override(**chosen))
