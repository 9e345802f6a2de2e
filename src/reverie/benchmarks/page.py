"""report.html: one page that needs nothing beside it and works from a file; its looks and its script are in page.html.

Scores with their intervals drawn, how the scores of the images are spread, and a gallery: of every task the best, the
worst and some at random, each with its prompt, thought and verdict.
"""

from __future__ import annotations

import base64
import html
import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from ..png import open_picture
from .protocol import Benchmark, Row, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

CASES = 144
"""About how many images are shown."""
SIDE, SMALL = 256, 96
"""Pixels of an image in the gallery, and of what the painter was given."""
BINS = 20
LONGEST = 600  # letters of a judge's words


def html_of(out: Path, benchmark: Benchmark, scores: Mapping[str, Any], rows: Sequence[Row]) -> str:
    from . import report

    cases = chosen(rows)
    samples = {one.id: one for one in benchmark.samples}
    shown = dict.fromkeys(row.tag for row, _ in cases)
    filled = {
        "title": html.escape(report.title(scores)),
        "about": html.escape(report.about(scores)),
        "headline": _headline(scores),
        "rows": "".join(_line(name, entry, scores, shown) for name, entry in scores["scores"].items()),
        "notes": "".join(f"<li>{html.escape(note)}" for note in scores["notes"]),
        "histogram": histogram([row.score for row in rows if row.score is not None]),
        "tags": "".join(f'<option value="{html.escape(tag)}">{html.escape(tag)}' for tag in shown),
        "cards": "".join(_card(out, benchmark, samples[row.id], row, kinds) for row, kinds in cases),
        "settings": html.escape(json.dumps({k: scores[k] for k in scores if k != "scores"}, indent=1)),
    }
    return Template(Path(__file__).with_name("page.html").read_text("utf-8")).substitute(filled)


def chosen(rows: Sequence[Row]) -> list[tuple[Row, tuple[str, ...]]]:
    """Of every task the best, the worst and some at random, and as which of these each was chosen."""
    tags: dict[str, list[Row]] = {}
    for row in rows:
        if row.file:
            tags.setdefault(row.tag, []).append(row)
    each = max(2, CASES // 3 // max(1, len(tags)))
    found = []
    for tag, group in tags.items():
        # of equals those that come first by chance, not by the order of the list; the same on every machine
        rng = random.Random(tag)
        mixed = rng.sample(group, len(group))
        ranked = sorted((row for row in mixed if row.score is not None), key=lambda row: -(row.score or 0.0))
        few = min(each, -(-len(ranked) // 2))  # of a small task nothing is both best and worst
        picks = {
            "best": ranked[:few],
            "worst": ranked[len(ranked) - min(few, len(ranked) // 2) :][::-1],
            "random": rng.sample(group, min(each, len(group))),
        }
        kinds: dict[tuple[str, int], list[str]] = {}
        of: dict[tuple[str, int], Row] = {}
        for kind, picked in picks.items():
            for row in picked:
                kinds.setdefault((row.id, row.index), []).append(kind)
                of[row.id, row.index] = row
        found += [(of[place], tuple(names)) for place, names in kinds.items()]
    return found


# ------------------------------------------------------------------------------------------------------- parts


def _share(value: float, name: str, scores: Mapping[str, Any]) -> float:
    return value / 100 if name in scores["percent"] else value


def _number(value: float, name: str, scores: Mapping[str, Any]) -> str:
    return f"{value:.1f}" if name in scores["percent"] else f"{value:.3f}"


def _headline(scores: Mapping[str, Any]) -> str:
    name, entry = next(iter(scores["scores"].items()), ("", scores["overall"]))
    if entry["mean"] is None:
        return "<p class='big'>no score yet</p>"
    mean, low, high = (_number(entry[key], name, scores) for key in ("mean", "low", "high"))
    unit = "%" if name in scores["percent"] else ""
    return (
        f"<p class='big'><b>{mean}{unit}</b> <span>{html.escape(name)}, 95% interval {low} to {high}, "
        f"{entry['items']} values of {entry['clusters']} prompts</span></p>"
    )


def _line(name: str, entry: Mapping[str, Any], scores: Mapping[str, Any], tags: Mapping[str, Any]) -> str:
    """A line of the table, with the interval drawn on a scale from 0 to 1; a click shows the task's images."""
    label = html.escape(name)
    if name in tags:
        label = f'<button type="button" data-tag="{label}">{label}</button>'
    if entry["mean"] is None:
        return f"<tr><th>{label}<td>0<td>none<td><td>"
    mean, low, high = (_number(entry[key], name, scores) for key in ("mean", "low", "high"))
    a, b, c = (100 * min(1.0, max(0.0, _share(entry[key], name, scores))) for key in ("low", "mean", "high"))
    drawn = (
        f'<svg viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label="{low} to {high}">'
        f'<rect class="track" x="0" y="3.4" width="100" height="1.2"/><rect class="bar" x="0" y="2.4" width="{b:.2f}" '
        f'height="3.2"/><rect class="range" x="{a:.2f}" y="3.4" width="{max(c - a, 0.3):.2f}" height="1.2"/>'
        f'<rect class="dot" x="{max(b - 0.4, 0):.2f}" y="1" width="0.8" height="6"/></svg>'
    )
    return f"<tr><th>{label}<td>{entry['items']}<td>{mean}<td>{low} to {high}<td class='plot'>{drawn}"


def histogram(values: Sequence[float]) -> str:
    """How the scores of single images are spread: an SVG, empty where there are none."""
    if not values:
        return ""
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, max(0, int(value * BINS)))] += 1
    top, wide, high = max(counts), 24, 110
    bars = "".join(
        f'<g><title>{count} images from {place / BINS:.2f} to {(place + 1) / BINS:.2f}</title><rect class="bar" '
        f'x="{place * wide + 2}" y="{high - high * count / top:.1f}" width="{wide - 4}" '
        f'height="{high * count / top:.1f}"/></g>'
        for place, count in enumerate(counts)
        if count
    )
    ends = "".join(
        f'<text x="{x}" y="{high + 16}" text-anchor="{anchor}">{text}</text>'
        for x, anchor, text in ((2, "start", "0"), (BINS * wide / 2, "middle", "0.5"), (BINS * wide - 2, "end", "1"))
    )
    return (
        f'<svg class="histogram" viewBox="0 0 {BINS * wide} {high + 22}" role="img" aria-label="scores of images">'
        f'{bars}<line x1="0" y1="{high}" x2="{BINS * wide}" y2="{high}"/>{ends}</svg>'
    )


def _card(out: Path, benchmark: Benchmark, sample: Sample, row: Row, kinds: Sequence[str]) -> str:
    look = "none" if row.score is None else "good" if row.score >= 1 else "bad" if row.score <= 0 else "part"
    score = row.end if row.score is None else f"{row.score:.2f}"
    parts = [
        f'<article class="{look}" data-tag="{html.escape(row.tag)}" data-kind="{" ".join(kinds)}" '
        f'data-score="{-1 if row.score is None else row.score}">',
        _picture(out, row),
        f'<p class="badge">{html.escape(score)}</p>',
        _given(benchmark, sample),
        f"<h3>{html.escape(row.prompt)}</h3>",
    ]
    for label, text in (("thought", row.thought), ("painted from", row.text if row.text != row.prompt else None)):
        if text:
            parts.append(f"<p><small>{label}</small> <i>{html.escape(_short(text))}</i></p>")
    if row.reason:
        parts.append(f'<p class="reason">{html.escape(_short(row.reason))}</p>')
    if row.seen and row.seen != row.reason:
        parts.append(f"<p><small>seen</small> {html.escape(_short(row.seen))}</p>")
    parts.append(
        f"<footer>{html.escape(row.tag)} · {html.escape(row.id)}/{row.index} · {' '.join(kinds)}</footer></article>"
    )
    return "".join(parts)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def _picture(out: Path, row: Row) -> str:
    path = out / str(row.file)
    if not path.is_file():  # users do tidy up
        return '<p class="gone">the picture is gone</p>'
    return f'<img alt="{html.escape(row.prompt)}" src="{embedded(open_picture(path), SIDE)}">'


def _given(benchmark: Benchmark, sample: Sample) -> str:
    """What the painter was given beside the prompt, small."""
    if benchmark.inputs is None:
        return ""
    try:
        given = benchmark.inputs(sample)
    except ValueError:
        return ""  # pictures made elsewhere can be judged without those that they were made from
    pictures = [given.picture, *(part for part in given.context if not isinstance(part, str))]
    images = "".join(f'<img alt="given" src="{embedded(one, SMALL)}">' for one in pictures if one is not None)
    return f'<p class="given">{images}</p>' if images else ""


def embedded(picture: Image, side: int) -> str:
    """A picture as text that stands in the page itself, at most `side` pixels wide and high."""
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "WEBP", lossless=max(small.size) <= SMALL, quality=80)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()
