"""The captioner: photographs in, captions out. Each step is public, for those who hold
embeddings or prefixes already.

Axes: B batch, D CLIP width, K prefix_length, E decoder width.
(The ClipCap authors' code calls the embedding `prefix`.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from clipcap import bundle as bundles
from clipcap.bundle import Bundle, BundleConfig
from clipcap.clip_score import TextSide
from clipcap.consensus import Consensus
from clipcap.decoder import text_of
from clipcap.encoder import Encoder
from clipcap.errors import ClipCapError, OptionsError
from clipcap.expected_cider import Expectations
from clipcap.gpt2 import GPT2
from clipcap.linear import convert_linears
from clipcap.mappers import Mapper
from clipcap.memory import Room
from clipcap.model_thread import model_thread
from clipcap.models import locate
from clipcap.options import DecodingOptions
from clipcap.precision import Precision, choose
from clipcap.recorded import RecordedGPT2
from clipcap.search import Hypothesis, Vocabulary, draw, ended_first, search

Result = TypeVar("Result")
Search = Callable[[GPT2, Tensor, Vocabulary, DecodingOptions], list[list[Hypothesis]]]

ENCODED_TOGETHER_ON_CPU = 8
"""Images. What a tower computes of more leaves the processor's caches, and goes back to the system
each time: of 32 at once, each takes a third longer."""


@dataclass(frozen=True)
class Caption:
    """A caption; how sure the model is of it, in nats per token (0 is certain); and how well CLIP
    finds that it fits, from 0 to 2.5, where the bundle's CLIP reads text."""

    text: str
    mean_log_probability: float
    clip_score: float | None = None


@dataclass(frozen=True)
class _Parts:
    """Those of a bundle, in the form that captions are made with."""

    config: BundleConfig
    revision: str
    encoder: Encoder
    mapper: Mapper
    decoder: GPT2
    tokenizer: PreTrainedTokenizerBase
    consensus: Consensus
    expectations: Expectations | None


class Captioner:
    """A loaded bundle on one device. Threads may share it: a thread of its own computes for all of
    them in turn. More images at once than the device has memory for are done in parts.

    `close`, or leaving a `with` block, lets go of the model and its memory.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str | torch.device | None = None,
        precision: Precision = "auto",
    ) -> None:
        """The bundle's encoder and mapper are converted in place, and not to be used elsewhere.

        Raises: OptionsError, where the device cannot compute in this precision.
        """
        self.device = _device(device)
        on_cpu = self.device.type == "cpu"
        self._room_to_encode = Room(ENCODED_TOGETHER_ON_CPU if on_cpu else None)
        self._room_to_decode = Room()
        self.precision = choose(precision, self.device)
        self._loaded: _Parts | None = self.run(lambda: self._load(bundle, precision))
        self._vocabulary = Vocabulary.of(
            bundle.decoder.tokenizer,
            bundle.config.stop_token,
            size=bundle.decoder.model.config.vocab_size,
        ).to(self.device)

    def _load(self, bundle: Bundle, precision: Precision) -> _Parts:
        # What int8 costs is measured, and accepted, of a decoder.
        around = choose("auto", self.device) if precision == "int8" else self.precision
        bundle.encoder.to(self.device)
        bundle.encoder.compute_in(around.mode)
        bundle.mapper.to(self.device)
        convert_linears(bundle.mapper, around.mode)
        bundle.decoder.to(self.device)
        tokenizer, expected_cider = bundle.decoder.tokenizer, bundle.expected_cider
        if expected_cider is not None:
            expected_cider.to(self.device)
        network = RecordedGPT2 if self.device.type == "cuda" else GPT2
        return _Parts(
            bundle.config,
            bundle.revision,
            bundle.encoder,
            bundle.mapper,
            network(bundle.decoder.model, self.precision.mode),
            tokenizer,
            Consensus(tokenizer),
            None if expected_cider is None else Expectations(expected_cider, tokenizer),
        )

    @classmethod
    def load(
        cls,
        name_or_path: str | Path,
        device: str | torch.device | None = None,
        precision: Precision = "auto",
    ) -> Captioner:
        """Load a bundle folder, `"bundled"`, the authors' `"coco"` or `"conceptual"`, a
        checkpoint file of theirs, or `"owner/name"` of the hub; onto a GPU where there is one,
        and in the precision that suits the device.

        Raises: BundleError, naming the file and the key; OptionsError, where the device cannot
        compute in this precision.
        """
        folder = locate(name_or_path)
        bundle = model_thread(_device(device)).run(lambda: bundles.load(folder))
        return cls(bundle, device, precision)

    def close(self) -> None:
        def let_go() -> None:
            self._loaded = None

        self.run(let_go)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def _parts(self) -> _Parts:
        if self._loaded is None:
            raise ClipCapError("this captioner has been closed")
        return self._loaded

    @property
    def name(self) -> str:
        return self._parts.config.name

    @property
    def revision(self) -> str:
        """A short hash of config and weights."""
        return self._parts.revision

    @property
    def defaults(self) -> DecodingOptions:
        """The bundle's own decoding options."""
        return self._parts.config.decoding

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels of what the model sees."""
        return self._parts.encoder.image_size

    def run(self, work: Callable[[], Result]) -> Result:
        """What `work` returns or raises, done in the thread that computes. Several steps in one
        `run` wait once for their turn, and not at each step for a thread that reads photographs.
        """
        return model_thread(self.device).run(work)

    def caption(
        self, images: Sequence[Image.Image], options: DecodingOptions | None = None
    ) -> list[list[Caption]]:
        """Caption images of any size and mode: for each its candidates, best first."""
        return self.caption_pixels([self.preprocess(image) for image in images], options)

    def caption_pixels(
        self, pixels: Sequence[Tensor], options: DecodingOptions | None = None
    ) -> list[list[Caption]]:
        """As `caption`, of what `preprocess` has made of the images."""
        if not pixels:
            return []

        def steps() -> list[list[Caption]]:
            embedding = self.encode(pixels)
            return self.decode(self.prefix(embedding), options, embedding=embedding)

        return self.run(steps)

    def preprocess(self, image: Image.Image) -> Tensor:
        """Upright, resized, normalised pixels `(3, H, W)` on the CPU. Touches no model, so it
        may run in any thread."""
        return self._parts.encoder.preprocess(image)

    def encode(self, pixels: Tensor | Sequence[Tensor]) -> Tensor:
        """Shapes: pixels `(B, 3, H, W)`, or B of `(3, H, W)` → embedding `(B, D)`, normalised if
        the bundle says so."""

        @torch.inference_mode()
        def encode_part(part: slice) -> Tensor:
            embedding = self._parts.encoder.encode(_stacked(pixels[part]).to(self.device))
            return self.normalize(embedding)

        return self.run(lambda: torch.cat(self._room_to_encode.run(encode_part, len(pixels))))

    def normalize(self, embedding: Tensor) -> Tensor:
        """L2-normalise embeddings `(B, D)` where the bundle was trained with it."""
        if not self._parts.config.normalize_embedding:
            return embedding
        return torch.nn.functional.normalize(embedding, dim=-1)

    def prefix(self, embedding: Tensor) -> Tensor:
        """Shapes: embedding `(B, D)` → prefix `(B, K, E)`."""

        @torch.inference_mode()
        def map_embedding() -> Tensor:
            prefix: Tensor = self._parts.mapper(embedding.to(self.device))
            return prefix

        return self.run(map_embedding)

    def decode(
        self,
        prefix: Tensor | Sequence[Tensor],
        options: DecodingOptions | None = None,
        *,
        embedding: Tensor | Sequence[Tensor] | None = None,
        clip_scores: bool = True,
    ) -> list[list[Caption]]:
        """At most `num_captions` candidates for each prefix, no two the same, best first. They
        have a `clip_score` if the embedding is given and the bundle's CLIP reads text; each costs
        a pass of its text side, so who needs them only where they rank says `clip_scores=False`.

        Shapes: prefix `(B, K, E)`, embedding `(B, D)`; or B of `(K, E)`, and of `(D,)`.
        Raises: OptionsError where candidates cannot be ranked as asked for, ClipCapError where
        the decoder's probabilities are no numbers.
        """
        if not len(prefix):
            return []
        options = options or self.defaults
        return self.run(
            lambda: self._decode(
                _stacked(prefix),
                options,
                None if embedding is None else _stacked(embedding),
                clip_scores,
            )
        )

    def _decode(
        self,
        prefix: Tensor,
        options: DecodingOptions,
        embedding: Tensor | None,
        clip_scores: bool,
    ) -> list[list[Caption]]:
        by_clip = options.rank_by == "clip_score"
        text_side = self._parts.encoder.text
        if by_clip and (text_side is None or embedding is None):
            raise OptionsError("rank_by clip_score needs a CLIP that reads text, and embeddings")
        found = self._ranked(self._find(prefix, options), prefix, options, embedding)
        candidates = [self._distinct(hypotheses) for hypotheses in found]
        if not by_clip:
            candidates = [captions[: options.num_captions] for captions in candidates]
        if text_side is not None and embedding is not None and (clip_scores or by_clip):
            candidates = _with_clip_scores(candidates, text_side, embedding.to(self.device))
        if by_clip:
            whole = [self._distinct([one for one in of if one.ended]) for of in found]
            candidates = [
                _by_clip_score(captions, {one.text for one in ended})
                for captions, ended in zip(candidates, whole, strict=True)
            ]
        return [captions[: options.num_captions] for captions in candidates]

    def _find(self, prefix: Tensor, options: DecodingOptions) -> list[list[Hypothesis]]:
        found = self._of_each(search, prefix, options)
        _require_numbers(found)
        if options.method == "beam" and options.beam_rule == "reference":
            return found  # in the order of the authors
        return [ended_first(hypotheses) for hypotheses in found]

    def _ranked(
        self,
        found: list[list[Hypothesis]],
        prefix: Tensor,
        options: DecodingOptions,
        embedding: Tensor | None,
    ) -> list[list[Hypothesis]]:
        """The candidates of each image by what the decoder or the embedding tells of them; as
        they are, where that is their probability, or where what `_distinct` leaves is ranked."""
        if all(len(candidates) == 1 for candidates in found):
            return found
        if options.rank_by == "consensus":
            return self._parts.consensus.rank(found, self._of_each(draw, prefix, options))
        if options.rank_by == "expected_cider":
            expectations = self._parts.expectations
            if expectations is None or embedding is None:
                raise OptionsError(
                    "rank_by expected_cider needs a bundle that has learned it, and embeddings"
                )
            return expectations.rank(found, embedding.to(self.device))
        return found

    def _of_each(
        self, find: Search, prefix: Tensor, options: DecodingOptions
    ) -> list[list[Hypothesis]]:
        decoder, vocabulary = self._parts.decoder, self._vocabulary
        found = self._room_to_decode.run(
            lambda part: find(decoder, prefix[part].to(self.device), vocabulary, options),
            len(prefix),
        )
        return [hypotheses for part in found for hypotheses in part]

    def _distinct(self, hypotheses: list[Hypothesis]) -> list[Caption]:
        """Different tokens may say the same; the first is the best."""
        captions: dict[str, Caption] = {}
        for hypothesis in hypotheses:
            text = text_of(self._parts.tokenizer, hypothesis.token_ids)
            if self._parts.config.presentation == "sentence":
                text = as_sentence(text)
            captions.setdefault(text, Caption(text, hypothesis.mean_log_probability))
        return list(captions.values())


def _stacked(items: Tensor | Sequence[Tensor]) -> Tensor:
    return items if isinstance(items, Tensor) else torch.stack(list(items))


def _device(chosen: str | torch.device | None) -> torch.device:
    return torch.device(chosen or ("cuda" if torch.cuda.is_available() else "cpu"))


def _require_numbers(found: list[list[Hypothesis]]) -> None:
    """Damaged weights, or an overflow in half precision, would else pass for a caption."""
    for hypotheses in found:
        if not hypotheses or any(math.isnan(one.log_probability) for one in hypotheses):
            raise ClipCapError("the decoder's probabilities are no numbers")


def _by_clip_score(captions: list[Caption], whole: set[str]) -> list[Caption]:
    """Those of which nothing was cut first."""
    return sorted(captions, key=lambda one: (one.text not in whole, -(one.clip_score or 0)))


@torch.inference_mode()
def _with_clip_scores(
    candidates: list[list[Caption]], text_side: TextSide, embedding: Tensor
) -> list[list[Caption]]:
    """Shapes: embedding `(B, D)`, B lists of candidates."""
    counts = torch.tensor([len(captions) for captions in candidates], device=embedding.device)
    texts = [caption.text for captions in candidates for caption in captions]
    scores = iter(text_side.score(embedding.repeat_interleave(counts, dim=0), texts))
    return [
        [replace(caption, clip_score=next(scores)) for caption in captions]
        for captions in candidates
    ]


def as_sentence(text: str) -> str:
    """A capital letter first; a full stop last, unless the sentence has its own end."""
    text = text.rstrip(" .,;:")
    end = "." if text and text[-1] not in "!?…" else ""
    return text[:1].upper() + text[1:] + end
