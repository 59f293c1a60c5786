"""Other views of an image: crops of varying size and aspect, mirrored, in other light.

They keep a captioner that was trained on squashed squares from failing on photographs of any
other shape.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SMALLEST_AREA = 0.45
WIDEST_ASPECT = 1.5
BRIGHTNESS = 0.25
CONTRAST = 0.3
SATURATION = 0.4


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """One random view of each image, of the same size; the same for the same generator.

    Shapes: pixels, view `(B, 3, H, W)`, normalised around 0.
    """
    cropped = _crop(pixels, generator)
    mean = cropped.mean(dim=(1, 2, 3), keepdim=True)
    light = _uniform(len(pixels), -BRIGHTNESS, BRIGHTNESS, generator)
    contrast = _uniform(len(pixels), 1 - CONTRAST, 1 + CONTRAST, generator)
    lit = (cropped - mean) * contrast + mean + light
    grey = lit.mean(dim=1, keepdim=True)
    saturation = _uniform(len(pixels), 1 - SATURATION, 1 + SATURATION, generator)
    view = grey + (lit - grey) * saturation
    dark, bright = (f(dim=(1, 2, 3), keepdim=True) for f in (pixels.amin, pixels.amax))
    return view.clamp(dark, bright)


def _crop(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """A random rectangle of each image, stretched to the whole and mirrored half the time."""
    count = len(pixels)
    area = _uniform(count, SMALLEST_AREA, 1.0, generator)
    limit = math.log(WIDEST_ASPECT)
    aspect = _uniform(count, -limit, limit, generator).exp()
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    mirror = torch.where(_uniform(count, 0, 1, generator) < 0.5, -1.0, 1.0)
    right = _uniform(count, -1, 1, generator) * (1 - width)
    down = _uniform(count, -1, 1, generator) * (1 - height)
    zero = torch.zeros_like(width)
    rows = [
        torch.cat([width * mirror, zero, right], dim=-1),
        torch.cat([zero, height, down], dim=-1),
    ]
    transform = torch.cat(rows, dim=1).squeeze(2)  # (B, 2, 3)
    grid = torch.nn.functional.affine_grid(transform, list(pixels.shape), align_corners=False)
    return torch.nn.functional.grid_sample(
        pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """`(B, 1, 1, 1)`."""
    return torch.rand(count, 1, 1, 1, generator=generator) * (high - low) + low
