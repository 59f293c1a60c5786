"""One decoding step of GPT-2 124M in ONNX Runtime beside ours, what the choice between them rests
on (docs/decoding.md): `python -m benchmarks.onnx_runtime`, after `pip install onnx onnxruntime`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import onnxruntime
import torch
from onnxruntime.quantization import quantize_dynamic
from torch import Tensor, nn
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.timing import side_by_side
from clipcap.gpt2 import GPT2
from clipcap.key_values import KeyValues
from clipcap.precision import possible_modes

READ = 18
"""Positions before this one: a prefix of 10, and half of 16 tokens."""
ROWS = (5, 40, 80)
"""Five beams of 1, 8 and 16 images."""
ROUNDS = 20


class Step(nn.Module):
    """What one step computes, in operations that ONNX knows.

    Shapes: tokens `(N,)`, past `(L, 2, N, H, S, E/H)` → logits `(N, V)`, keys and values of the
    new position `(L, 2, N, H, 1, E/H)`.
    """

    def __init__(self, model: GPT2LMHeadModel) -> None:
        super().__init__()
        self.network, self.head, self.heads = model.transformer, model.lm_head, model.config.n_head

    def forward(self, tokens: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        x = self.network.wte(tokens) + self.network.wpe.weight[past.shape[4]]  # (N, E)
        new = []
        for layer, block in enumerate(self.network.h):
            queries, keys, values = (
                each.unflatten(-1, (self.heads, 1, -1))  # (N, H, 1, E/H)
                for each in block.attn.c_attn(block.ln_1(x)).chunk(3, dim=-1)
            )
            new.append(torch.stack([keys, values]))
            all_keys = torch.cat([past[layer, 0], keys], dim=2)
            all_values = torch.cat([past[layer, 1], values], dim=2)
            weights = (queries @ all_keys.transpose(2, 3)) * queries.shape[-1] ** -0.5
            x = x + block.attn.c_proj((weights.softmax(dim=-1) @ all_values).flatten(1))
            widened = functional.gelu(block.mlp.c_fc(block.ln_2(x)), approximate="tanh")
            x = x + block.mlp.c_proj(widened)
        return self.head(self.network.ln_f(x)), torch.stack(new)


def main() -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config()).eval()
    step = Step(model).eval()
    config = model.config
    ours = {f"clipcap {mode}": GPT2(model, mode) for mode in possible_modes(torch.device("cpu"))}
    with tempfile.TemporaryDirectory() as folder:
        exact, small = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        _export(step, _inputs(config, 5), exact)
        quantize_dynamic(exact, small, per_channel=True)
        sessions = {
            "ONNX Runtime fp32": _session(exact),
            "ONNX Runtime int8": _session(small),
        }
        for rows in ROWS:
            tokens, past = _inputs(config, rows)
            contenders = {name: _call(each, tokens, past) for name, each in sessions.items()}
            contenders |= {name: _step(each, tokens) for name, each in ours.items()}
            expected, _ = step(tokens, past)
            found, _ = sessions["ONNX Runtime fp32"].run(None, _feed(tokens, past))
            torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-3)
            for name, taken_ms in side_by_side(contenders, ROUNDS).items():
                print(f"| {rows} | {name} | {taken_ms:.1f} |", flush=True)


def _inputs(config: GPT2Config, rows: int) -> tuple[Tensor, Tensor]:
    width = config.n_embd // config.n_head
    past = torch.randn(config.n_layer, 2, rows, config.n_head, READ, width)
    return torch.randint(config.vocab_size, (rows,)), past


def _export(step: Step, inputs: tuple[Tensor, Tensor], path: Path) -> None:
    names = {"tokens": {0: "rows"}, "past": {2: "rows", 4: "read"}}
    torch.onnx.export(
        step, inputs, path, input_names=list(names), output_names=["logits", "new"],
        dynamic_axes=names, dynamo=False,
    )  # fmt: skip


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _feed(tokens: Tensor, past: Tensor) -> dict[str, object]:
    return {"tokens": tokens.numpy(), "past": past.numpy()}


def _call(
    session: onnxruntime.InferenceSession, tokens: Tensor, past: Tensor
) -> Callable[[], object]:
    return lambda: session.run(None, _feed(tokens, past))


def _step(model: GPT2, tokens: Tensor) -> Callable[[], object]:
    prefix = torch.randn(len(tokens), READ, model.config.n_embd)

    def run() -> Tensor:
        return model(model.embed(tokens), cache)

    cache = _Still(model.config, prefix, READ + 1)
    with torch.inference_mode():
        model(prefix, cache)
    return torch.inference_mode()(run)


class _Still(KeyValues):
    """Reads the same position again and again."""

    def placed(self, positions: Tensor, new: int) -> Tensor:
        self._length = self._used = min(self._length, READ)
        return super().placed(positions, new)


if __name__ == "__main__":
    main()
