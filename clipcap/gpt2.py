"""A GPT-2 for inference: the weights of one of transformers, and nothing that search does not
need. It reads a prefix once, then one token a step for each row, and gives logits for the last
position only.

Axes: N rows, T positions read at once, S positions in all, L layers, H heads, E width.
Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from clipcap.largest import largest
from clipcap.linear import linear
from clipcap.precision import Mode

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
    """For attention, where `keep` gives positions that not every row has read."""

    def placed(self, positions: Tensor, new: int) -> Tensor:
        """Of the vectors of all positions, those of the next ones of each row: `(new, E)`."""

    def keep(self, layer: int, keys_values: Tensor) -> tuple[Tensor, Tensor]:
        """Add those of a layer and give back all that it has, of G groups of rows.

        Shapes: `(N, T, 2·E)` → twice `(G, S, E)`.
        """


class _Layer:
    def __init__(self, block: Any, index: int, config: GPT2Config, mode: Mode) -> None:
        self._norm_1, self._norm_2 = _norm(block.ln_1), _norm(block.ln_2)
        self._queries_keys_values = _transposed(block.attn.c_attn, mode)
        self._project = _transposed(block.attn.c_proj, mode)
        gelu = config.activation_function == "gelu_new"
        self._widen = _transposed(block.mlp.c_fc, mode, gelu=gelu)
        self._activation = None if gelu else block.mlp.act
        self._narrow = _transposed(block.mlp.c_proj, mode)
        self._heads = config.n_head
        self._scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            self._scale /= index + 1
        self._index = index

    def __call__(self, x: Tensor, cache: Cache) -> Tensor:
        """Shapes: `(N, T, E)` → `(N, T, E)`."""
        x = x + self._attend(self._norm_1(x), cache)
        widened: Tensor = self._widen(self._norm_2(x))
        if self._activation is not None:
            widened = self._activation(widened)
        narrowed: Tensor = self._narrow(widened)
        return x + narrowed

    def _attend(self, x: Tensor, cache: Cache) -> Tensor:
        N, T, E = x.shape
        queries, keys_values = self._queries_keys_values(x).split([E, 2 * E], dim=-1)
        keys, values = cache.keep(self._index, keys_values)
        queries = queries.reshape(len(keys), -1, E)  # (G, N·T/G, E)
        queries, keys, values = (
            each.unflatten(-1, (self._heads, -1)).transpose(1, 2)  # (G, H, positions, E/H)
            for each in (queries, keys, values)
        )
        read = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=cache.mask, is_causal=T > 1, scale=self._scale
        )
        projected: Tensor = self._project(read.transpose(1, 2).reshape(N, T, E))
        return projected


def _transposed(conv: Any, mode: Mode, *, gelu: bool = False) -> nn.Module:
    """GPT-2 stores its matrices as `(in, out)`."""
    return linear(conv.weight.t(), conv.bias, mode, gelu=gelu)


def _norm(norm: Any) -> Callable[[Tensor], Tensor]:
    shape, epsilon = norm.normalized_shape, norm.eps
    weight, bias = norm.weight.detach().float(), norm.bias.detach().float()
    return lambda x: functional.layer_norm(x, shape, weight, bias, epsilon)
