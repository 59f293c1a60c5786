"""Keys and values of what has been read, where the beams of an image share them.

A beam goes on from one of the step before, so what an image's beams have read is a tree. Each
position of it is stored once, and a mask says by which of them a beam has come: no step copies
what was there before it.

Axes: G groups, W rows of each, N = G·W rows, S positions of a group, T positions of a row,
L layers, E width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import GPT2Config

WIDEST = 8
"""Rows of a group. Each row is compared with all that its group has read, which for many rows is
more work than copying."""


class KeyValues:
    """The rows of an image belong together where they are beams, and few; else each is a group.

    Shapes: prefix `(B, K, E)`.
    """

    mask: Tensor | None = None
    """To be added to the scores of a group's positions, `(G, 1, W, S)`: 0, or -inf where a row
    has not come by."""

    def __init__(
        self, config: GPT2Config, prefix: Tensor, longest: int, *, beams: bool = False
    ) -> None:
        """`longest`: K, and the tokens that will be read after it. `beams`: whether each image will
        always have as many rows as any other, one after the other."""
        groups, _, width = prefix.shape
        self._beams = beams
        self._longest = longest
        self._store = prefix.new_empty(
            config.n_layer, 2, groups, longest, width, dtype=torch.float32
        )
        self._rows_each = 1
        self._length = 0  # positions of a row
        self._used = 0  # positions of a group
        self._passed: Tensor | None = None  # the mask, `(N, S)` with room for all S

    @property
    def read(self) -> Tensor:
        """Shapes: `(L, 2, G, S, E)`."""
        return self._store[..., : self._used, :]

    def placed(self, positions: Tensor, new: int) -> Tensor:
        """Of the vectors of all positions, those of the next ones of each row: `(new, E)`."""
        rows_each, first = self._rows_each, self._used
        self._length += new
        self._used += new * rows_each
        if self._passed is not None:
            passed = self._passed.view(-1, rows_each, self._passed.shape[1])
            passed[..., first : self._used].diagonal(dim1=1, dim2=2).zero_()  # each its own
            self.mask = passed[:, None, :, : self._used]
        return positions[self._length - new : self._length]

    def keep(self, layer: int, keys_values: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of a layer and give back all that it has.

        Shapes: `(N, T, 2·E)` → twice `(G, S, E)`.
        """
        of_layer = self._store[layer]
        groups, width = of_layer.shape[1], of_layer.shape[3]
        new = keys_values.view(groups, -1, 2, width).permute(2, 0, 1, 3)
        of_layer[:, :, self._used - new.shape[2] : self._used] = new
        keys, values = of_layer[:, :, : self._used]
        return keys, values

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, some perhaps more than once. Shapes: `(N,)`."""
        groups = rows // self._rows_each
        # By what one image is known to have, or a caption would depend on those beside it.
        rows_each = int((groups == groups[0]).sum()) if self._beams else 1
        if rows_each > WIDEST:
            self._beams = False
        if self._beams:
            self._select_together(rows, groups[::rows_each], rows_each)
        else:
            self._select_alone(rows)

    def _select_together(self, rows: Tensor, groups: Tensor, rows_each: int) -> None:
        room = self._used + rows_each * (self._longest - self._length)
        passed = rows.new_full((len(rows), room), -torch.inf, dtype=torch.float32)
        if self._passed is None:
            passed[:, : self._used] = 0
        else:
            passed[:, : self._used] = self._passed[rows, : self._used]
        if rows_each != self._rows_each or not self._are_all(groups):
            self._move(self.read[:, :, groups], room)
        self._rows_each, self._passed = rows_each, passed

    def _select_alone(self, rows: Tensor) -> None:
        if self._passed is not None:
            came_by = (self._passed[rows, : self._used] == 0).nonzero()[:, 1]
            positions = came_by.view(len(rows), self._length)
            groups = rows[:, None] // self._rows_each
            self._move(self._store[:, :, groups, positions], self._longest)
        elif not self._are_all(rows):
            self._move(self.read[:, :, rows], self._longest)
        self._rows_each, self._used = 1, self._length
        self._passed = self.mask = None

    def _are_all(self, groups: Tensor) -> bool:
        """And where they have always been."""
        return torch.equal(groups, torch.arange(self._store.shape[2], device=groups.device))

    def _move(self, read: Tensor, room: int) -> None:
        """To a store with room for so many positions. Shapes: `(L, 2, G, S, E)`."""
        layers, two, groups, length, width = read.shape
        self._store = self._store.new_empty(layers, two, groups, room, width)
        self._store[..., :length, :] = read
