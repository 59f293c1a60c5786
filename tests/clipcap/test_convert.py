"""Checkpoints of every layout that ClipCap's authors published become bundles that hold exactly
their weights; a file that is none is refused with what is wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from clipcap import BundleError, Captioner
from clipcap import bundle as bundles
from clipcap.cli import main
from clipcap.convert import convert
from clipcap.mappers import LinearConfig, MapperConfig, MLPConfig, TransformerConfig
from tests.clipcap import authors
from tests.tiny_bundle import build_tiny_tower

State = dict[str, Tensor]
SIZES = {"decoder_dim": authors.WIDTH}
MLP = MLPConfig(embedding_dim=512, prefix_length=10, **SIZES)
LINEAR = LinearConfig(embedding_dim=512, prefix_length=40, **SIZES)
TRANSFORMER = TransformerConfig(embedding_dim=640, prefix_length=40, clip_length=40, **SIZES)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    authors.build_tokenizer(folder)
    return folder


def state(mapper: State, *, masks: bool = False) -> State:
    return mapper | authors.gpt2(masks=masks)


def saved(weights: object, path: Path, **options: bool) -> Path:
    torch.save(weights, path, **options)
    return path


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize(
    ("mapper", "config", "encoder", "normalize"),
    [
        (authors.mlp, MLP, "ViT-B-32-quickgelu:openai", False),
        (authors.linear, LINEAR, "ViT-B-32-quickgelu:openai", False),
        (authors.transformer, TRANSFORMER, "RN50x4-quickgelu:openai", True),
    ],
)
def test_every_layout_gives_its_configuration_and_its_very_weights(
    tmp_path: Path,
    tokenizer: Path,
    mapper: Callable[[], State],
    config: MapperConfig,
    encoder: str,
    normalize: bool,
    masks: bool,
) -> None:
    weights = state(mapper(), masks=masks)
    path = saved(weights, tmp_path / "weights.pt")

    convert(path, tmp_path / "bundle", tokenizer=str(tokenizer))

    found = bundles.read_config(tmp_path / "bundle")
    assert found.mapper == config
    assert found.encoder == encoder
    assert found.normalize_embedding is normalize
    assert (found.stop_token, found.decoding.beam_rule) == (".", "reference")
    stored = load_file(tmp_path / "bundle" / "mapper.safetensors")
    decoder = load_file(tmp_path / "bundle" / "decoder" / "model.safetensors")
    stored = {f"clip_project.{key}": weight for key, weight in stored.items()}
    stored |= {f"gpt.{key}": weight for key, weight in decoder.items()}
    dropped = {"gpt.lm_head.weight"} | {key for key in weights if ".attn.bias" in key}
    dropped |= {key for key in weights if key.endswith("masked_bias")}
    assert stored.keys() == weights.keys() - dropped
    for key, weight in stored.items():
        assert torch.equal(weight, weights[key]), key


@pytest.mark.parametrize(
    "rename", [lambda key: f"module.{key}", lambda key: f"module._orig_mod.{key}",
               lambda key: key.replace("clip_project.", "clip_project._orig_mod.")],
)  # fmt: skip
@pytest.mark.parametrize("archive", [True, False])
def test_wrappers_and_the_old_file_format_change_nothing(
    tmp_path: Path, tokenizer: Path, rename: Callable[[str], str], archive: bool
) -> None:
    weights = state(authors.mlp(), masks=True)
    plain = saved(weights, tmp_path / "a.pt")
    wrapped = saved(
        {rename(key): weight for key, weight in weights.items()},
        tmp_path / "b.pt",
        _use_new_zipfile_serialization=archive,
    )
    for path in (plain, wrapped):
        convert(path, tmp_path / path.stem, tokenizer=str(tokenizer), name="same")
    for file in ("mapper.safetensors", "decoder/model.safetensors", "decoder/config.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_converted_checkpoint_captions(tmp_path: Path, tokenizer: Path) -> None:
    """With a tower of the test's own, 32 wide, in the place of OpenAI's; twice, from the cache."""
    path = saved(state(authors.mlp(embedding_dim=32)), tmp_path / "mine.pt")
    tower = build_tiny_tower(tmp_path / "tower")
    done = CliRunner().invoke(
        main,
        ["convert", str(path), str(tmp_path / "out"), "--encoder", str(tower),
         "--tokenizer", str(tokenizer), "--normalize", "--name", "mine"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "mlp: 32 -> 10 x 128" in done.output

    captioner = Captioner.load(tmp_path / "out")

    assert captioner.name == "mine"
    embedding = captioner.encode(torch.ones(1, 3, 32, 32))
    torch.testing.assert_close(embedding.norm(dim=-1), torch.ones(1))
    [[caption]] = captioner.caption([Image.new("RGB", (32, 32), "red")])
    assert caption.mean_log_probability < 0


def refusal(path: Path, tmp_path: Path, tokenizer: Path | str, **options: str) -> str:
    with pytest.raises(BundleError) as caught:
        convert(path, tmp_path / "out", tokenizer=str(tokenizer), **options)
    assert not (tmp_path / "out").exists()
    return str(caught.value)


def without(weights: State, key: str) -> None:
    del weights[key]


def cut(weights: State, key: str) -> None:
    weights[key] = weights[key][:-1].clone()


def doubled(weights: State, key: str) -> None:
    weights[f"module.{key}"] = weights[key]


def untied(weights: State, key: str) -> None:
    weights[key] = weights[key] + 1


def added(weights: State, key: str) -> None:
    weights[key] = torch.zeros(3)


@pytest.mark.parametrize(
    ("spoil", "key", "said"),
    [
        (without, "clip_project.model.2.bias", "missing"),
        (without, "clip_project.model.0.weight", "missing"),
        (without, "gpt.transformer.h.1.attn.c_attn.bias", "missing"),
        (without, "gpt.transformer.wte.weight", "missing"),
        (cut, "clip_project.model.0.bias", "shape (639,), the model needs (640,)"),
        (cut, "clip_project.model.2.weight", "no multiple of 128"),
        (cut, "gpt.transformer.h.0.mlp.c_fc.weight", "shape (127, 512)"),
        (doubled, "gpt.transformer.wpe.weight", "twice"),
        (untied, "gpt.lm_head.weight", "not tied"),
        (added, "optimizer.step", "no weight of one"),
        (added, "clip_project.model.4.bias", "does not belong"),
        (added, "gpt.transformer.h.0.attn.c_attn.masked_bias", "does not belong"),
    ],
)
def test_a_foreign_key_or_shape_is_named(
    tmp_path: Path, tokenizer: Path, spoil: Callable[[State, str], None], key: str, said: str
) -> None:
    weights = state(authors.mlp())
    spoil(weights, key)
    message = refusal(saved(weights, tmp_path / "bad.pt"), tmp_path, tokenizer)
    assert str(tmp_path / "bad.pt") in message
    assert f"'{key}'" in message
    assert said in message


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    whole = saved(state(authors.mlp()), tmp_path / "whole.pt").read_bytes()
    bad = tmp_path / "bad.pt"
    for content, said in [
        (whole[:-100], "cut off after"),
        (whole[: len(whole) // 2], "cut off after"),
        (b"", "damaged, or no checkpoint"),
        (b"<!doctype html><title>404</title>", "not a file of weights"),
    ]:
        bad.write_bytes(content)
        message = refusal(bad, tmp_path, tokenizer)
        assert str(bad) in message
        assert said in message
        assert "\n" not in message
    for loaded, said in [([1, 2], "holds a list"), ({"epoch": 3}, "'epoch' is a int")]:
        assert said in refusal(saved(loaded, bad), tmp_path, tokenizer)


class Trap:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("sprung",)


def test_code_in_a_checkpoint_is_never_run(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = saved({"clip_project.weight": Trap()}, tmp_path / "trap.pt")
    assert "not a file of weights alone" in refusal(path, tmp_path, tokenizer)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        ("RN50x4-quickgelu:openai", "512 wide, but encoder 'RN50x4-quickgelu:openai' is 640"),
        ("ViT-B-32-quickgelu:nobody", "knows no such"),
        ("nothing", "knows no such"),
    ],
)
def test_a_clip_that_does_not_fit_is_refused(
    tmp_path: Path, tokenizer: Path, encoder: str, said: str
) -> None:
    path = saved(state(authors.mlp()), tmp_path / "a.pt")
    assert said in refusal(path, tmp_path, tokenizer, encoder=encoder)


def test_what_cannot_be_known_is_asked_for(tmp_path: Path, tokenizer: Path) -> None:
    unknown_clip = saved(state(authors.mlp(embedding_dim=768)), tmp_path / "a.pt")
    assert "768 wide" in refusal(unknown_clip, tmp_path, tokenizer)
    larger = authors.mlp() | authors.gpt2(masks=False, vocab_size=281)
    message = refusal(saved(larger, tmp_path / "b.pt"), tmp_path, tokenizer)
    assert "has 280 tokens" in message
    nowhere = refusal(saved(state(authors.mlp()), tmp_path / "c.pt"), tmp_path, "/no/such")
    assert "must be a folder" in nowhere


def test_a_missing_checkpoint_is_one_line() -> None:
    done = CliRunner().invoke(main, ["convert", "nowhere.pt", "out"])
    assert done.exit_code == 1
    assert done.output == "Error: nowhere.pt: No such file or directory\n"
