from __future__ import annotations

import pytest

from captioning.forecast import MOST_COUNTED, Forecast
from web.pages import looks


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "a few seconds"),
        (7, "about 10 seconds"),
        (61, "about 65 seconds"),
        (91, "about 2 minutes"),
        (3600, "about 60 minutes"),
        (7201, "about 3 hours"),
    ],
)
def test_times_are_no_nearer_than_anybody_can_know(seconds: float, words: str) -> None:
    assert looks.about(seconds) == words


@pytest.mark.parametrize(
    ("forecast", "words"),
    [
        (Forecast(0, None), "Next in the queue"),
        (Forecast(1, 30), "1 photograph before it, about 30 seconds left"),
        (Forecast(MOST_COUNTED, None), "more than 1000 photographs before it"),
    ],
)
def test_a_place_is_told(forecast: Forecast, words: str) -> None:
    assert looks.place(forecast) == words


@pytest.mark.parametrize(
    ("forecast", "words"),
    [
        (Forecast(4, None), ""),
        (Forecast(4, 30), "about 30 seconds to go"),
        (Forecast(5, None), "sharing the queue with one other"),
        (Forecast(9, 30), "about 30 seconds to go, sharing the queue with 5 others"),
        (Forecast(1, 30), "about 30 seconds to go"),  # some were put back meanwhile
    ],
)
def test_what_is_left_of_five_is_told(forecast: Forecast, words: str) -> None:
    assert looks.time_left(forecast, 5) == words
