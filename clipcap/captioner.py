"""The captioner: photographs in, captions out. Each step is public, for those who hold
embeddings or prefixes already.

Axes: B batch, D CLIP width, K prefix_length, E decoder width.
(The ClipCap authors' code calls the embedding `prefix`.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from clipcap import bundle as bundles
from clipcap.bundle import Bundle
from clipcap.options import DecodingOptions
from clipcap.search import Hypothesis, search


@dataclass(frozen=True)
class Caption:
    """A caption and how sure the model is of it, in nats per token (0 is certain)."""

    text: str
    mean_log_probability: float


class Captioner:
    """A loaded bundle on one device."""

    def __init__(self, bundle: Bundle, device: str | torch.device | None = None) -> None:
        self._bundle = bundle
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.device = torch.device(chosen)
        bundle.encoder.visual.to(self.device)
        bundle.decoder.to(self.device)
        bundle.mapper.to(self.device)
        self._stop_id = bundle.decoder.tokenizer.get_vocab()[bundle.config.stop_token]

    @classmethod
    def load(cls, name_or_path: str | Path, device: str | torch.device | None = None) -> Captioner:
        """Load `"bundled"` or a bundle folder, onto a GPU where there is one.

        Raises: BundleError, naming the file and the key.
        """
        return cls(bundles.load(name_or_path), device)

    @property
    def name(self) -> str:
        return self._bundle.config.name

    @property
    def revision(self) -> str:
        """A short hash of config and weights."""
        return self._bundle.revision

    @property
    def defaults(self) -> DecodingOptions:
        """The bundle's own decoding options."""
        return self._bundle.config.decoding

    def caption(
        self, images: Sequence[Image.Image], options: DecodingOptions | None = None
    ) -> list[list[Caption]]:
        """Caption images of any size and mode: for each its candidates, best first."""
        if not images:
            return []
        pixels = torch.stack([self.preprocess(image) for image in images])
        return self.decode(self.prefix(self.encode(pixels)), options)

    def preprocess(self, image: Image.Image) -> Tensor:
        """Upright, resized, normalised pixels `(3, H, W)` on the CPU. Touches no model, so it
        may run in any thread."""
        return self._bundle.encoder.preprocess(image)

    @torch.inference_mode()
    def encode(self, pixels: Tensor) -> Tensor:
        """Shapes: pixels `(B, 3, H, W)` → embedding `(B, D)`, normalised if the bundle says so."""
        embedding = self._bundle.encoder.encode(pixels.to(self.device))
        return self.normalize(embedding)

    def normalize(self, embedding: Tensor) -> Tensor:
        """L2-normalise embeddings `(B, D)` where the bundle was trained with it."""
        if not self._bundle.config.normalize_embedding:
            return embedding
        return torch.nn.functional.normalize(embedding, dim=-1)

    @torch.inference_mode()
    def prefix(self, embedding: Tensor) -> Tensor:
        """Shapes: embedding `(B, D)` → prefix `(B, K, E)`."""
        prefix: Tensor = self._bundle.mapper(embedding.to(self.device))
        return prefix

    def decode(self, prefix: Tensor, options: DecodingOptions | None = None) -> list[list[Caption]]:
        """Shapes: prefix `(B, K, E)`. Returns B lists of candidates, best first."""
        if not len(prefix):
            return []
        model = self._bundle.decoder.model
        found = search(model, prefix.to(self.device), self._stop_id, options or self.defaults)
        return [[self._present(hypothesis) for hypothesis in candidates] for candidates in found]

    def _present(self, hypothesis: Hypothesis) -> Caption:
        text = self._bundle.decoder.text(hypothesis.token_ids)
        if self._bundle.config.presentation == "sentence":
            text = as_sentence(text)
        return Caption(text, hypothesis.mean_log_probability)


def as_sentence(text: str) -> str:
    """A capital letter first; a full stop last, unless the sentence has its own end."""
    text = text.rstrip(" .,;:")
    end = "." if text and text[-1] not in "!?…" else ""
    return text[:1].upper() + text[1:] + end
