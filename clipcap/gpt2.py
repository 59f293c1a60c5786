"""A GPT-2 for inference: the weights of one of transformers, and nothing that search does not
need. It reads a prefix once, then one token a step for each row, and gives logits for the last
position only.

Axes: N rows, T positions read at once, S positions in all, L layers, H heads, E width.
Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from clipcap.largest import largest
from clipcap.linear import linear
from clipcap.precision import Mode

ACTIVATIONS = {"gelu_new": partial(functional.gelu, approximate="tanh")}
"""Those that torch has as one operation, beside transformers' own."""
SHARPENED = 32
"""How many logits of a row are computed again. A step of beam search considers at most 20 with
the usual five beams and three stop tokens."""


class GPT2:
    """The network. It is not trained, and does not change when the model it was made of does."""

    def __init__(self, model: GPT2LMHeadModel, mode: Mode = "fp32") -> None:
        self.config: GPT2Config = model.config
        network = model.transformer
        self._tokens = network.wte.weight.detach().float()  # (V, E)
        self._positions = network.wpe.weight.detach().float()  # (S, E)
        self._layers = [
            _Layer(block, index, self.config, mode) for index, block in enumerate(network.h)
        ]
        self._norm = _norm(network.ln_f)
        # What all logits of a row have in common says nothing, but would take bits from the rest.
        self._common = self._tokens.mean(dim=0)
        self._head = linear(self._tokens - self._common, None, mode)
        self._exact = mode == "fp32"

    def embed(self, tokens: Tensor) -> Tensor:
        """Shapes: tokens `(N,)` → `(N, 1, E)`."""
        return functional.embedding(tokens, self._tokens)[:, None]

    def __call__(self, x: Tensor, cache: Cache) -> Tensor:
        """Logits, but for a number that all of a row share, of the token after the last of
        these positions, which go on from what the cache holds.

        Shapes: x `(N, T, E)` → `(N, V)`; T is 1 unless the cache is empty.
        """
        x = x + cache.placed(self._positions, x.shape[1])
        for layer in self._layers:
            x = layer(x, cache)
        hidden = self._norm(x[:, -1])  # (N, E)
        logits: Tensor = self._head(hidden)
        return logits if self._exact else self._sharpened(logits, hidden)

    def _sharpened(self, logits: Tensor, hidden: Tensor) -> Tensor:
        """Those that a search may choose from are computed again in single precision: rounded
        as the others are, many a caption would be another one."""
        _, few = largest(logits, SHARPENED)
        exact = (self._tokens[few] * hidden[:, None]).sum(dim=-1) - hidden.mv(self._common)[:, None]
        return logits.scatter_(1, few, exact)


class Cache(Protocol):
    """What rows have read, as the network sees it while it reads on."""

    mask: Tensor | None
    """Of bool, for positions that have not been read, where `keep` gives such."""

    def placed(self, positions: Tensor, new: int) -> Tensor:
        """Of the vectors of all positions, those of the next ones: `(new, E)`."""

    def keep(self, layer: int, keys_values: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of a layer and give back all that it has.

        Shapes: `(N, T, 2·E)` → twice `(N, T of all, E)`.
        """


class KeyValues:
    """The keys and values of what each row has read. Position comes first, so that what beams
    do not share is one block.

    Shapes: `(S, L, 2, N, E)`.
    """

    mask: Tensor | None = None

    def __init__(self, config: GPT2Config, prefix: Tensor, longest: int) -> None:
        rows, self._shared, width = prefix.shape
        self._store = prefix.new_empty(longest, config.n_layer, 2, rows, width, dtype=torch.float32)
        self._other: Tensor | None = None  # of the same shape, with the same prefixes
        self._images = torch.arange(rows, device=prefix.device)
        self._length = 0

    @property
    def read(self) -> Tensor:
        """Shapes: `(T of all, L, 2, N, E)`."""
        return self._store[: self._length]

    def placed(self, positions: Tensor, new: int) -> Tensor:
        self._length += new
        return positions[self._length - new : self._length]

    def keep(self, layer: int, keys_values: Tensor) -> tuple[Tensor, Tensor]:
        first = self._length - keys_values.shape[1]
        self._store[first : self._length, layer] = by_position(keys_values)
        keys, values = self.read[:, layer].permute(1, 2, 0, 3)  # (2, N, T, E)
        return keys, values

    def select(self, rows: Tensor) -> None:
        """Go on with these rows, some perhaps more than once. Shapes: `(M,)`."""
        images = self._images[rows]
        if not torch.equal(images, self._images):
            S, L, two, _, E = self._store.shape
            store = self._store.new_empty(S, L, two, len(rows), E)
            torch.index_select(self.read, 3, rows, out=store[: self._length])
            self._store, self._other, self._images = store, None, images
            return
        if self._other is None:
            self._other = torch.empty_like(self._store)
            self._other[: self._shared] = self._store[: self._shared]
        # Prefixes stay where they are, and the rest goes to and fro between two stores: fresh
        # memory for each step would cost more than the copy.
        unshared = slice(self._shared, self._length)
        torch.index_select(self._store[unshared], 3, rows, out=self._other[unshared])
        self._store, self._other = self._other, self._store


def by_position(keys_values: Tensor) -> Tensor:
    """Shapes: `(N, T, 2·E)` → `(T, 2, N, E)`."""
    return keys_values.view(*keys_values.shape[:2], 2, -1).permute(1, 2, 0, 3)


class _Layer:
    def __init__(self, block: Any, index: int, config: GPT2Config, mode: Mode) -> None:
        self._norm_1, self._norm_2 = _norm(block.ln_1), _norm(block.ln_2)
        self._queries_keys_values = _transposed(block.attn.c_attn, mode)
        self._project = _transposed(block.attn.c_proj, mode)
        self._widen = _transposed(block.mlp.c_fc, mode)
        self._narrow = _transposed(block.mlp.c_proj, mode)
        self._activation = ACTIVATIONS.get(config.activation_function) or block.mlp.act
        self._heads = config.n_head
        self._scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self._scale /= index + 1
        self._index = index

    def __call__(self, x: Tensor, cache: Cache) -> Tensor:
        """Shapes: `(N, T, E)` → `(N, T, E)`."""
        x = x + self._attend(self._norm_1(x), cache)
        widened: Tensor = self._activation(self._widen(self._norm_2(x)))
        narrowed: Tensor = self._narrow(widened)
        return x + narrowed

    def _attend(self, x: Tensor, cache: Cache) -> Tensor:
        N, T, E = x.shape
        queries, keys_values = self._queries_keys_values(x).split([E, 2 * E], dim=-1)
        keys, values = cache.keep(self._index, keys_values)
        queries, keys, values = (
            each.unflatten(-1, (self._heads, -1)).transpose(1, 2)  # (N, H, positions, E/H)
            for each in (queries, keys, values)
        )
        read = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=cache.mask, is_causal=T > 1, scale=self._scale
        )
        projected: Tensor = self._project(read.transpose(1, 2).reshape(N, T, E))
        return projected


def _transposed(conv: Any, mode: Mode) -> nn.Module:
    """GPT-2 stores its matrices as `(in, out)`."""
    return linear(conv.weight.t(), conv.bias, mode)


def _norm(norm: Any) -> Callable[[Tensor], Tensor]:
    shape, epsilon = norm.normalized_shape, norm.eps
    weight, bias = norm.weight.detach().float(), norm.bias.detach().float()
    return lambda x: functional.layer_norm(x, shape, weight, bias, epsilon)
