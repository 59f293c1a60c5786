"""A bundle is whole or it is refused, with the file and the key named."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file

from clipcap import BundleError, Captioner
from clipcap import bundle as bundles
from clipcap.cli import main
from clipcap.mappers import (
    LinearConfig,
    MapperConfig,
    MLPConfig,
    TransformerConfig,
    build_mapper,
)

Copy = Callable[[], Path]


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "bundle.json"
    config = json.loads(path.read_text())
    config.update(changes)
    path.write_text(json.dumps(config))


def edit_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    weights = load_file(path)
    change(weights)
    save_file(weights, path)


def refusal(folder: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Captioner.load(folder)
    return str(caught.value)


def test_a_saved_bundle_captions_as_the_one_it_was_saved_from(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = bundles.load(tiny_bundle)
    bundles.save(
        tmp_path / "again",
        bundle.config,
        encoder=bundle.encoder,
        decoder=bundle.decoder,
        mapper=bundle.mapper,
        card="another card",
    )
    images = [Image.new("RGB", (50, 20), colour) for colour in ("red", "cyan")]

    again = Captioner.load(tmp_path / "again")

    assert again.caption(images) == Captioner.load(tiny_bundle).caption(images)
    assert again.revision == bundle.revision


MAPPERS: list[MapperConfig] = [
    MLPConfig(embedding_dim=32, prefix_length=3, decoder_dim=32),
    LinearConfig(embedding_dim=32, prefix_length=12, decoder_dim=32),
    TransformerConfig(
        embedding_dim=32, prefix_length=2, decoder_dim=32, clip_length=3, layers=2, heads=4
    ),
]


@pytest.mark.parametrize("mapper_config", MAPPERS, ids=lambda config: str(config.kind))
@pytest.mark.parametrize("normalize", [False, True])
def test_mapper_stop_rule_and_normalisation_come_back_as_saved(
    tiny_bundle: Path, tmp_path: Path, mapper_config: MapperConfig, normalize: bool
) -> None:
    whole = bundles.load(tiny_bundle)
    mapper = build_mapper(mapper_config)
    config = whole.config.model_copy(
        update={
            "mapper": mapper_config,
            "normalize_embedding": normalize,
            "stop_token": ".",
            "presentation": "raw",
        }
    )
    bundles.save(
        tmp_path / "saved",
        config,
        encoder=whole.encoder,
        decoder=whole.decoder,
        mapper=mapper,
        card="",
        dtype=torch.float32,
    )

    loaded = bundles.load(tmp_path / "saved")
    captioner = Captioner.load(tmp_path / "saved", precision="fp32")

    assert loaded.config == config
    embedding = captioner.encode(torch.ones(2, 3, 32, 32))
    lengths = embedding.norm(dim=-1)
    assert torch.allclose(lengths, torch.ones(2)) is normalize
    with torch.inference_mode():
        torch.testing.assert_close(captioner.prefix(embedding), mapper.eval()(embedding))
    shown = CliRunner().invoke(main, ["info", str(tmp_path / "saved")]).output
    assert f"{mapper_config.kind}: 32 -> {mapper_config.prefix_length} x 32" in shown
    assert ("embedding normalised" in shown) is normalize
    assert "stops at  .\n" in shown


def test_it_names_what_another_kind_of_mapper_would_need(copy_of: Copy) -> None:
    folder = copy_of()
    mapper = json.loads((folder / "bundle.json").read_text())["mapper"]
    edit_config(folder, mapper={**mapper, "kind": "transformer"})
    assert "mapper.clip_length: Field required" in refusal(folder)
    edit_config(folder, mapper={**mapper, "kind": "conformer"})
    assert "mapper: Input tag 'conformer'" in refusal(folder)


def test_it_names_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert "nowhere" in refusal(tmp_path / "nowhere")


def test_it_says_what_a_bundle_is_when_given_another_folder(tmp_path: Path) -> None:
    assert str(tmp_path / "bundle.json") in refusal(tmp_path)


@pytest.mark.parametrize(
    "file",
    [
        "mapper.safetensors",
        "decoder/config.json",
        "decoder/model.safetensors",
        "decoder/tokenizer.json",
        "clip/open_clip_config.json",
        "clip/open_clip_model.safetensors",
    ],
)
def test_it_names_a_missing_file(copy_of: Copy, file: str) -> None:
    folder = copy_of()
    (folder / file).unlink()
    assert str(folder / file) in refusal(folder)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_it_refuses_an_unknown_format_version(copy_of: Copy, version: object) -> None:
    folder = copy_of()
    edit_config(folder, format_version=version)
    message = refusal(folder)
    assert "bundle.json" in message
    assert "format_version" in message


def test_it_refuses_an_unknown_key_of_the_config(copy_of: Copy) -> None:
    folder = copy_of()
    edit_config(folder, normalise_embedding=True)
    message = refusal(folder)
    assert "bundle.json" in message
    assert "normalise_embedding" in message


def test_it_refuses_a_missing_key_of_the_config(copy_of: Copy) -> None:
    folder = copy_of()
    config = json.loads((folder / "bundle.json").read_text())
    del config["mapper"]["prefix_length"]
    (folder / "bundle.json").write_text(json.dumps(config))
    assert "mapper.prefix_length" in refusal(folder)


def test_it_refuses_decoding_defaults_that_make_no_sense(copy_of: Copy) -> None:
    folder = copy_of()
    edit_config(folder, decoding={"method": "magic"})
    message = refusal(folder)
    assert "bundle.json" in message
    assert "method" in message


def test_it_refuses_a_stop_token_that_the_tokenizer_lacks(copy_of: Copy) -> None:
    folder = copy_of()
    edit_config(folder, stop_token="<stop>")
    assert "<stop>" in refusal(folder)


def test_it_refuses_json_that_is_cut_off(copy_of: Copy) -> None:
    folder = copy_of()
    path = folder / "bundle.json"
    path.write_text(path.read_text()[:-20])
    assert str(path) in refusal(folder)


def test_it_names_a_missing_weight(copy_of: Copy) -> None:
    folder = copy_of()
    edit_weights(folder / "mapper.safetensors", lambda weights: weights.pop("model.2.bias"))
    message = refusal(folder)
    assert str(folder / "mapper.safetensors") in message
    assert "'model.2.bias'" in message


def test_it_names_a_weight_that_does_not_belong(copy_of: Copy) -> None:
    folder = copy_of()

    def add(weights: dict[str, torch.Tensor]) -> None:
        weights["model.4.bias"] = torch.zeros(3)

    edit_weights(folder / "mapper.safetensors", add)
    assert "'model.4.bias'" in refusal(folder)


def test_it_names_a_weight_of_the_wrong_shape(copy_of: Copy) -> None:
    folder = copy_of()
    key = "transformer.h.0.attn.c_attn.bias"

    def shorten(weights: dict[str, torch.Tensor]) -> None:
        weights[key] = weights[key][:-1].clone()

    edit_weights(folder / "decoder" / "model.safetensors", shorten)
    message = refusal(folder)
    assert str(folder / "decoder" / "model.safetensors") in message
    assert key in message
    assert re.search(r"\(95,\).*\(96,\)", message)


def test_it_refuses_a_mapper_of_another_size_than_the_models(copy_of: Copy) -> None:
    folder = copy_of()
    mapper = json.loads((folder / "bundle.json").read_text())["mapper"]
    edit_config(folder, mapper={**mapper, "decoder_dim": 64})
    assert "mapper.decoder_dim" in refusal(folder)


@pytest.mark.parametrize(
    "file", ["mapper.safetensors", "decoder/model.safetensors", "clip/open_clip_model.safetensors"]
)
def test_it_refuses_weights_that_are_cut_off(copy_of: Copy, file: str) -> None:
    folder = copy_of()
    path = folder / file
    path.write_bytes(path.read_bytes()[:-100])
    assert str(path.parent) in refusal(folder)


@pytest.mark.parametrize("name", ["coco_weights.pt", "decoder/pytorch_model.bin", "a.pkl"])
def test_it_refuses_a_pickle_without_reading_it(copy_of: Copy, name: str) -> None:
    folder = copy_of()
    (folder / name).write_bytes(b"never read")
    message = refusal(folder)
    assert str(folder / name) in message
    assert "pickle" in message


def test_the_revision_follows_weights_and_config_but_not_the_card(copy_of: Copy) -> None:
    folder = copy_of()
    original = bundles.revision_of(folder)

    (folder / "README.md").write_text("a better card")
    assert bundles.revision_of(folder) == original

    edit_config(folder, name="another")
    renamed = bundles.revision_of(folder)
    assert renamed != original

    def nudge(weights: dict[str, torch.Tensor]) -> None:
        weights["model.0.bias"] += 1

    edit_weights(folder / "mapper.safetensors", nudge)
    assert bundles.revision_of(folder) not in (original, renamed)


def saved(bundle: bundles.Bundle, folder: Path) -> None:
    bundles.save(
        folder,
        bundle.config,
        encoder=bundle.encoder,
        decoder=bundle.decoder,
        mapper=bundle.mapper,
        card="a card",
    )


@pytest.mark.parametrize(
    "name", ["README.md", "run.sh", "decoder/config.json", "clip/film.mp4", "bundle.json"]
)
def test_nothing_is_written_over_what_is_no_bundle(
    tiny_bundle: Path, tmp_path: Path, name: str
) -> None:
    project = tmp_path / "project"
    for other in (name, "notes.txt"):
        (project / other).parent.mkdir(parents=True, exist_ok=True)
        (project / other).write_text('{"js": 1}')
    if name == "README.md":
        (project / "notes.txt").unlink()
    before = {path: path.stat() for path in project.rglob("*")}
    with pytest.raises(BundleError):
        saved(bundles.load(tiny_bundle), project)
    after = {path: path.stat() for path in project.rglob("*")}
    assert {path: (s.st_mode, s.st_mtime_ns) for path, s in after.items()} == {
        path: (s.st_mode, s.st_mtime_ns) for path, s in before.items()
    }


def test_a_bundle_is_written_over_one_and_over_one_that_was_not_finished(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, folder = bundles.load(tiny_bundle), tmp_path / "again"
    saved(bundle, folder)
    (folder / "curve.png").write_text("its owner's")
    (folder / "curve.png").chmod(0o600)
    saved(bundle, folder)
    assert (folder / "curve.png").stat().st_mode & 0o777 == 0o600
    with monkeypatch.context() as patch:
        patch.setattr(bundles, "_share", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            saved(bundle, folder)
    (folder / ".tmpWoet4b").touch()  # as safetensors leaves it where it is killed
    assert not (folder / "bundle.json").exists()
    saved(bundle, folder)
    assert bundles.load(folder).revision == bundle.revision
    assert not (folder / ".unfinished").exists()


def test_who_may_read_one_file_of_a_bundle_may_read_all(tiny_bundle: Path) -> None:
    (tiny_bundle.parent / "plain").touch()
    mode = (tiny_bundle.parent / "plain").stat().st_mode
    assert {f.stat().st_mode for f in tiny_bundle.rglob("*") if f.is_file()} == {mode}


def test_half_precision_on_disk_is_single_precision_in_memory(tiny_bundle: Path) -> None:
    stored = load_file(tiny_bundle / "decoder" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    bundle = bundles.load(tiny_bundle)
    modules = (bundle.decoder.model, bundle.mapper, bundle.encoder.visual)
    assert {p.dtype for module in modules for p in module.parameters()} == {torch.float32}
