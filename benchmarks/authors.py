"""The beam search of ClipCap's authors as their code runs it, for comparison: one image, no
cache, the whole sequence read anew at each step.

Source: `generate_beam` of rmokady/CLIP_prefix_caption, written anew from its description.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import GPT2LMHeadModel


@torch.inference_mode()
def generate_beam(
    model: GPT2LMHeadModel, prefix: Tensor, *, beam_size: int, max_tokens: int, stop_id: int
) -> list[int]:
    """The tokens of the best beam.

    Shapes: prefix `(1, K, E)`.
    """
    first = model(inputs_embeds=prefix).logits[:, -1].log_softmax(dim=-1)  # (1, V)
    sums, tokens = (found.squeeze(0) for found in first.topk(beam_size))  # (beam_size,)
    ids = tokens[:, None]
    lengths = torch.ones(beam_size, device=prefix.device)
    stopped = tokens == stop_id
    while not stopped.all() and ids.shape[1] < max_tokens:
        read = torch.cat([prefix.expand(beam_size, -1, -1), model.transformer.wte(ids)], dim=1)
        rows = model(inputs_embeds=read).logits[:, -1].log_softmax(dim=-1)  # (beam_size, V)
        rows[stopped] = -torch.inf
        rows[stopped, 0] = 0
        lengths[~stopped] += 1
        means, chosen = ((sums[:, None] + rows) / lengths[:, None]).flatten().topk(beam_size)
        parents, tokens = chosen // rows.shape[1], chosen % rows.shape[1]
        ids = torch.cat([ids[parents], tokens[:, None]], dim=1)
        lengths, stopped = lengths[parents], stopped[parents] | (tokens == stop_id)
        sums = means * lengths
    best = int((sums / lengths).argmax())
    found: list[int] = ids[best, : int(lengths[best])].tolist()
    return found
