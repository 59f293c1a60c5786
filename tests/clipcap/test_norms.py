from __future__ import annotations

import copy

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from clipcap.norms import _Activated, fold_norms, fold_norms_in_training
from clipcap.precision import can_pack, possible_modes

MODES = possible_modes(torch.device("cpu"))
TOWERS = ["test_efficientnet", "tf_efficientnet_lite2", "efficientnet_es", "efficientnet_blur_b0"]
"""A small one, the bundled model's with its "same" padding, one with another kind of block, and one
with something between norms and convolutions."""


def tower_with_statistics(name: str) -> nn.Module:
    torch.manual_seed(0)
    tower = timm.create_model(name, num_classes=0).eval()
    for norm in tower.modules():
        if isinstance(norm, BatchNormAct2d):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0, 0.1)
    return tower


def norms_of(tower: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in tower.modules())


@pytest.mark.parametrize("name", TOWERS)
def test_a_folded_tower_sees_the_same_without_norms(name: str) -> None:
    tower = tower_with_statistics(name)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        seen = tower(pixels)
        norms = norms_of(tower)
        assert norms > 0
        fold_norms(tower)
        assert norms_of(tower) == 0
        activated = [module for module in tower.modules() if isinstance(module, _Activated)]
        assert len(activated) == (norms if can_pack() else 0)
        torch.testing.assert_close(tower(pixels), seen, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOWERS)
def test_folded_in_training_it_learns_and_is_stored_as_it_was(name: str) -> None:
    tower = tower_with_statistics(name).double()
    folded = copy.deepcopy(tower)
    fold_norms_in_training(folded)
    pixels = torch.randn(2, 3, 64, 64, dtype=torch.double)
    assert list(folded.state_dict()) == list(tower.state_dict())
    for one in (tower, folded):
        one(pixels).square().mean().backward()
    torch.testing.assert_close(folded(pixels), tower(pixels))
    for (key, ours), theirs in zip(folded.named_parameters(), tower.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, msg=key)


@pytest.mark.skipif("bf16" not in MODES, reason="this processor has no instructions for bf16")
@pytest.mark.parametrize("name", TOWERS)
def test_a_folded_tower_sees_nearly_the_same_in_bf16(name: str) -> None:
    tower = tower_with_statistics(name)
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        seen = tower(pixels)
        fold_norms(tower)
        coarsely = tower.bfloat16()(pixels.bfloat16()).float()
        assert torch.nn.functional.cosine_similarity(coarsely, seen).min() > 0.99


def test_other_towers_are_left_alone() -> None:
    tower = timm.create_model("test_resnet", num_classes=0).eval()
    before = norms_of(tower)
    fold_norms(tower)
    assert norms_of(tower) == before > 0
