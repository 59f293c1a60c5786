"""How a caption is searched for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, get_args

from clipcap.errors import OptionsError

Method = Literal["beam", "greedy", "nucleus"]
BeamRule = Literal["standard", "reference"]
RankBy = Literal["log_probability", "clip_score", "consensus", "expected_cider"]

METHODS = get_args(Method)


@dataclass(frozen=True)
class DecodingOptions:
    """Options of one search. The text beside each is its help on the command line.

    Raises: OptionsError.
    """

    method: Annotated[Method, "How to search: nucleus draws at random."] = "beam"
    beam_rule: Annotated[
        BeamRule, "Of beam search: reference is that of ClipCap's authors, token for token."
    ] = "standard"
    beam_size: Annotated[int, "Of beam search: how many beams."] = 5
    num_captions: Annotated[int, "Most candidates, best first."] = 1
    max_tokens: Annotated[int, "Most generated tokens, the stop token included."] = 40
    max_words: Annotated[int | None, "Most words of a caption, which ends as a sentence."] = None
    no_repeat_ngram: Annotated[
        int, "So many tokens in a row are never said twice; 0 allows it, as reference does."
    ] = 3
    length_penalty: Annotated[
        float, "Of standard beams: rank by log-probability / length ** this, 1 being the mean."
    ] = 1.0
    rank_by: Annotated[RankBy, "What puts the candidates in order."] = "log_probability"
    consensus_draws: Annotated[
        int, "Of rank_by consensus: how many captions are drawn for the candidates to agree with."
    ] = 40
    top_p: Annotated[float, "Of nucleus: the share of the probability that is drawn from."] = 0.9
    temperature: Annotated[float, "Of nucleus: below 1 likelier, above 1 more varied."] = 1.0
    seed: Annotated[int, "Of nucleus: the same seed gives the same captions."] = 0

    def __post_init__(self) -> None:
        for name, choices in (("method", Method), ("beam_rule", BeamRule), ("rank_by", RankBy)):
            if getattr(self, name) not in get_args(choices):
                allowed = ", ".join(get_args(choices))
                raise OptionsError(f"{name} must be one of {allowed}, not {getattr(self, name)!r}")
        for name in ("beam_size", "num_captions", "max_tokens", "consensus_draws"):
            if getattr(self, name) < 1:
                raise OptionsError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.max_words is not None and self.max_words < 1:
            raise OptionsError(f"max_words must be at least 1, not {self.max_words}")
        if self.no_repeat_ngram < 0:
            raise OptionsError(f"no_repeat_ngram must not be negative: {self.no_repeat_ngram}")
        if not 0 < self.top_p <= 1:
            raise OptionsError(f"top_p must be above 0 and at most 1, not {self.top_p}")
        if not self.temperature > 0:
            raise OptionsError(f"temperature must be above 0, not {self.temperature}")
        if not math.isfinite(self.length_penalty):
            raise OptionsError(f"length_penalty must be a number, not {self.length_penalty}")
        if not -(2**63) <= self.seed < 2**63:
            raise OptionsError(f"seed must fit 64 bits: {self.seed}")
        if self.method == "greedy" and self.num_captions > 1:
            raise OptionsError("greedy search finds one caption; use beam search for several")
        if self.method == "beam" and self.num_captions > self.beam_size:
            raise OptionsError(
                f"num_captions ({self.num_captions}) cannot exceed beam_size ({self.beam_size})"
            )
        if self.beam_rule == "reference" and self.max_words is not None:
            raise OptionsError("the reference rule knows no max_words; use the standard rule")

    def override(self, **chosen: Any) -> DecodingOptions:
        """These options with those that somebody chose, None being no choice. The beam widens
        where it has to, and gives way to the standard rule for what the reference cannot do.

        Raises: OptionsError.
        """
        chosen = {name: value for name, value in chosen.items() if value is not None}
        if chosen.get("method") == "greedy":
            chosen.setdefault("num_captions", 1)
        if "max_words" in chosen:
            chosen.setdefault("beam_rule", "standard")
        wanted = chosen.get("num_captions", self.num_captions)
        chosen.setdefault("beam_size", max(self.beam_size, wanted))
        return replace(self, **chosen)
