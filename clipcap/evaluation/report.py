"""An evaluation as one HTML page that needs nothing beside it: scores, and the worst, the median
and the best images with what was said of them."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

import numpy as np
from PIL import Image

from clipcap.data import Example
from clipcap.evaluation.bootstrap import Difference, Interval
from clipcap.evaluation.evaluate import Evaluation
from clipcap.evaluation.scores import TITLES

MOST_SHOWN = 8
"""Images in each of the three parts; fewer where an image would be in two."""
THUMBNAIL_PX = 320
PER_IMAGE = ("cider_d", "rouge_l", "bleu_4")


@dataclass(frozen=True)
class Entry:
    """One captioner in a report."""

    title: str
    evaluation: Evaluation
    intervals: Mapping[str, Interval]
    extra: Mapping[str, float]
    """Scores without an interval: METEOR, SPICE."""


def html_report(
    data: str,
    examples: Sequence[Example],
    entries: Sequence[Entry],
    differences: Mapping[str, Difference],
) -> str:
    """A page about the first entry, and how it compares with the second where there is one.

    Raises: DataError, naming the image that cannot be read.
    """
    first = entries[0]
    order = _worst_first(first.evaluation)
    shown = max(1, min(MOST_SHOWN, len(order) // 3))
    middle = (len(order) - shown) // 2
    parts = [
        ("Worst", order[:shown]),
        ("Median", order[middle : middle + shown]),
        ("Best", order[::-1][:shown]),
    ]
    body = [
        f"<h1>{escape(first.title)}</h1>",
        f"<p>{len(examples)} images of “{escape(data)}”. Scores are times 100; intervals hold 95 % "
        "of 1000 resamples of the images. CIDEr-D weighs words by the references of this set, "
        "so compare it on this set only.</p>",
        _scores_table(entries),
    ]
    if differences:
        body.append(_differences_table(entries, differences))
    for title, numbers in parts:
        figures = "".join(_figure(examples[number], number, entries) for number in numbers)
        body.append(f'<h2>{title} by CIDEr-D</h2><div class="images">{figures}</div>')
    style = (files("clipcap.evaluation") / "report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(first.title)}: evaluation</title><style>\n{style}</style></head>\n"
        f"<body><main>\n{chr(10).join(body)}\n</main></body></html>\n"
    )


def _worst_first(evaluation: Evaluation) -> list[int]:
    """By CIDEr-D; where that is equal, by ROUGE-L."""
    cider_d, rouge_l = (evaluation.measures[name].each() for name in ("cider_d", "rouge_l"))
    return [int(number) for number in np.lexsort((rouge_l, cider_d))]


def _scores_table(entries: Sequence[Entry]) -> str:
    names = dict.fromkeys(
        name for entry in entries for name in (*entry.evaluation.measures, *entry.extra)
    )
    rows = [[TITLES[name], *(_score(entry, name) for entry in entries)] for name in names]
    return _table("Scores", ["Score", *(entry.title for entry in entries)], rows)


def _score(entry: Entry, name: str) -> str:
    if name not in entry.intervals:
        return f"{entry.extra[name]:.1f}" if name in entry.extra else "left out"
    interval = entry.intervals[name]
    value = entry.evaluation.measures[name].value()
    return f"{value:.1f} ({interval.low:.1f} to {interval.high:.1f})"


def _differences_table(entries: Sequence[Entry], differences: Mapping[str, Difference]) -> str:
    rows = [
        [
            TITLES[name],
            f"{found.value:+.1f} ({found.low:+.1f} to {found.high:+.1f})",
            f"{100 * found.share_above:.1f} %",
        ]
        for name, found in differences.items()
    ]
    title = f"{entries[0].title} less {entries[1].title}, on the same images"
    return _table(title, ["Score", "Difference", "Resamples in which the first is better"], rows)


def _table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = "".join(f'<th scope="col">{escape(text)}</th>' for text in head)
    lines = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(text)}</td>" for text in row[1:])
        + "</tr>"
        for row in rows
    )
    return (
        f"<table><caption>{escape(caption)}</caption>"
        f"<thead><tr>{cells}</tr></thead><tbody>{lines}</tbody></table>"
    )


def _figure(example: Example, number: int, entries: Sequence[Entry]) -> str:
    said = "".join(_said(entry, number, named=len(entries) > 1) for entry in entries)
    references = "".join(f"<li>{escape(text)}</li>" for text in example.captions)
    name = escape(example.image.name)
    return (
        f'<figure><img src="{_thumbnail(example.image.open())}" alt="The photograph {name}">'
        f"<figcaption>{said}<p>People said:</p><ul>{references}</ul>"
        f'<p class="name">{name}</p></figcaption></figure>'
    )


def _said(entry: Entry, number: int, *, named: bool) -> str:
    measures = entry.evaluation.measures
    scores = ", ".join(f"{TITLES[name]} {measures[name].each()[number]:.0f}" for name in PER_IMAGE)
    who = f"{escape(entry.title)}: " if named else ""
    caption = escape(entry.evaluation.captions[number])
    return f'<p class="said">{who}<strong>{caption}</strong></p><p class="scores">{scores}</p>'


def _thumbnail(image: Image.Image) -> str:
    """As a data: address."""
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
