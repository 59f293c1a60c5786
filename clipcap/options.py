"""How a caption is searched for."""

from __future__ import annotations

from dataclasses import dataclass, replace

from clipcap.errors import OptionsError

METHODS = ("beam", "greedy")


@dataclass(frozen=True)
class DecodingOptions:
    """Options of one search. `max_tokens` counts generated tokens, the stop token included.

    Raises: OptionsError.
    """

    method: str = "beam"
    beam_size: int = 5
    num_captions: int = 1
    max_tokens: int = 40

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise OptionsError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
        for name in ("beam_size", "num_captions", "max_tokens"):
            if getattr(self, name) < 1:
                raise OptionsError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.method == "greedy" and self.num_captions > 1:
            raise OptionsError("greedy search finds one caption; use beam search for several")
        if self.method == "beam" and self.num_captions > self.beam_size:
            raise OptionsError(
                f"num_captions ({self.num_captions}) cannot exceed beam_size ({self.beam_size})"
            )

    def override(
        self, *, method: str | None = None, num_captions: int | None = None
    ) -> DecodingOptions:
        """These options with what somebody chose; the beam widens where it has to.

        Raises: OptionsError.
        """
        method = self.method if method is None else method
        if num_captions is None:
            num_captions = 1 if method == "greedy" else self.num_captions
        return replace(
            self,
            method=method,
            num_captions=num_captions,
            beam_size=max(self.beam_size, num_captions),
        )
