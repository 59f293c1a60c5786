"""Which precision a device is given, and that layers compute in it what they should."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from clipcap import Captioner, OptionsError
from clipcap.linear import convert_linears, linear
from clipcap.mappers import TransformerConfig, build_mapper
from clipcap.precision import choose, cpu_modes, possible_modes
from tests.tiny_bundle import COLOURS

CPU = torch.device("cpu")
MODES = possible_modes(CPU)
ERRORS = {"fp32": 1e-5, "bf16": 0.01, "int8": 0.02}


@pytest.mark.parametrize(
    ("features", "modes"),
    [
        ({}, ["fp32"]),
        ({"avx512_f": True, "avx512_vnni": False}, ["fp32"]),
        ({"avx512_vnni": True}, ["fp32", "int8"]),
        ({"avx512_bf16": True, "avx512_vnni": True}, ["fp32", "bf16", "int8"]),
        ({"amx_bf16": True, "amx_int8": True}, ["fp32", "bf16", "int8"]),
    ],
)
def test_a_processor_computes_in_what_it_has_instructions_for(
    features: dict[str, bool], modes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clipcap.precision.can_pack", lambda: True)
    assert cpu_modes(features) == modes
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features, raising=False)
    assert choose("auto", CPU).mode == ("bf16" if "bf16" in modes else "fp32")
    for mode in modes:
        assert choose(mode, CPU).mode == mode
    for mode in {"bf16", "int8"} - set(modes):
        with pytest.raises(OptionsError, match="can only fp32"):
            choose(mode, CPU)


def test_a_processor_that_torch_cannot_pack_for_computes_in_fp32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clipcap.precision.can_pack", lambda: False)
    assert cpu_modes({"avx512_bf16": True, "avx512_vnni": True}) == ["fp32"]
    monkeypatch.setattr("clipcap.linear.can_pack", lambda: False)
    weight, x = torch.randn(5, 7), torch.randn(3, 7)
    torch.testing.assert_close(linear(weight, None, "fp32")(x), x @ weight.t())


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(OptionsError, match="auto, fp32, bf16, int8"):
        choose("fp8", CPU)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_a_layer_computes_the_product_and_no_row_depends_on_others(mode: Any, bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(192, 130, bias=bias)
    x = torch.randn(40, 192) * torch.logspace(-3, 3, 40)[:, None]  # rows of any scale
    converted = linear(layer.weight, layer.bias, mode)
    found, wanted = converted(x), layer(x)
    assert found.dtype == torch.float32
    errors = (found - wanted).norm(dim=1) / wanted.norm(dim=1)
    assert errors.max() < ERRORS[mode]
    for rows in (1, 2, 5, 16, 33):
        torch.testing.assert_close(converted(x[:rows]), found[:rows], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@torch.inference_mode()
def test_a_row_of_nothing_gives_the_bias(mode: Any) -> None:
    layer = nn.Linear(64, 32)
    found = linear(layer.weight, layer.bias, mode)(torch.zeros(2, 64))
    torch.testing.assert_close(found[0], layer.bias, atol=0.002, rtol=0)


@torch.inference_mode()
def test_all_layers_of_a_mapper_are_converted() -> None:
    torch.manual_seed(0)
    config = TransformerConfig(
        embedding_dim=32, prefix_length=4, decoder_dim=64, clip_length=4, layers=2, heads=4
    )
    mapper, embedding = build_mapper(config).eval(), torch.randn(3, 32)
    wanted = mapper(embedding)
    convert_linears(mapper, "fp32")
    assert not [module for module in mapper.modules() if type(module) is nn.Linear]
    torch.testing.assert_close(mapper(embedding), wanted, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_attention_that_reads_its_weights_itself_stays() -> None:
    layers = nn.Sequential(nn.MultiheadAttention(8, 2), nn.Linear(8, 8))
    convert_linears(layers, "fp32")
    assert type(layers[0].out_proj) is not type(layers[1])
    assert functional.linear(torch.ones(8), layers[0].out_proj.weight).shape == (8,)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_captioner_captions_in_every_precision_whatever_the_batch(
    mode: Any, tiny_bundle: Any
) -> None:
    captioner = Captioner.load(tiny_bundle, "cpu", mode)
    assert captioner.precision.mode == mode
    images = [Image.new("RGB", (40, 30), colour) for colour in COLOURS]
    together = captioner.caption(images)
    for colour, image, (caption,) in zip(COLOURS, images, together, strict=True):
        assert colour in caption.text
        [[alone]] = captioner.caption([image])
        assert alone.text == caption.text
        assert alone.mean_log_probability == pytest.approx(caption.mean_log_probability, abs=1e-4)
