"""What a run says: scores.json, table.md, gallery.html and gallery.png, each written whole or not at all."""

from __future__ import annotations

import html
import json
import platform
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from itertools import zip_longest
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..files import write_atomically
from ..png import open_picture, save_png
from . import geneval, stats
from .protocol import Benchmark, Row

SHEET = 60  # pictures on gallery.png
PACKAGES = ("reverie", "torch", "transformers", "numpy", "pillow")


def write(
    out: Path, benchmark: Benchmark, run: Mapping[str, Any], rows: Sequence[Row], spent: Mapping[str, Any]
) -> dict[str, Any]:
    """All four files from the rows of a run; returns what scores.json holds."""
    scores = score(benchmark, run, rows, spent)
    write_whole(out / "scores.json", json.dumps(scores, indent=1) + "\n")
    write_whole(out / "table.md", table(scores))
    write_whole(out / "gallery.html", gallery(scores, rows))
    if rows:
        save_png(sheet(out, rows), out / "gallery.png")
    return scores


def write_whole(path: Path, text: str) -> None:
    write_atomically(path, lambda partial: partial.write_text(text, "utf-8"))


def score(
    benchmark: Benchmark, run: Mapping[str, Any], rows: Sequence[Row], spent: Mapping[str, Any]
) -> dict[str, Any]:
    """Overall and per tag with 95% intervals, and what is needed to know what was measured."""

    def of(part: Sequence[Row], weighting: stats.Weighting = "items") -> dict[str, Any]:
        values, clusters = [float(row.correct) for row in part], [row.cluster for row in part]
        strata = [row.tag for row in part] if weighting == "strata" else None
        return asdict(stats.estimate(values, clusters, strata, weighting))

    tags = {tag: of([row for row in rows if row.tag == tag]) for tag in dict.fromkeys(row.tag for row in rows)}
    summary = geneval.summarise((row.tag, row.id, row.correct) for row in rows)
    return {
        **run,
        "weighting": benchmark.weighting,
        "images_scored": len(rows),
        "overall": of(rows, benchmark.weighting),
        "tags": tags,
        "image_accuracy": of(rows),
        "prompt_accuracy": summary.prompt_accuracy,
        "spent": dict(spent),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _lines(scores: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [*scores["tags"].items(), ("overall", scores["overall"])]


def _title(scores: Mapping[str, Any]) -> str:
    name = f"{scores['benchmark']} {scores['version']}"
    return name if scores["complete"] else f"{name}, incomplete: {scores['images_scored']} images"


def _about(scores: Mapping[str, Any]) -> str:
    source = f"model {scores['model']}" if scores["model"] else f"pictures of {scores['images']}"
    plan, spent = scores["plan"], scores["spent"]
    told = "none" if plan is None else plan if isinstance(plan, str) else json.dumps(plan)
    return (
        f"{source}, plan {told}, seed {scores['seed']}, judge {scores['judge']}; {scores['images_scored']} images of "
        f"{scores['prompts']} prompts; {spent['painting']:.0f} s painting, {spent['judging']:.0f} s judging; "
        f"list {scores['checksum'][:12]}"
    )


def table(scores: Mapping[str, Any]) -> str:
    """Markdown: a line for each tag and one for overall."""
    lines = [f"## {_title(scores)}", "", "| task | images | correct | 95% interval |", "| --- | ---: | ---: | :---: |"]
    for name, entry in _lines(scores):
        if entry["mean"] is not None:
            lines.append(
                f"| {name} | {entry['items']} | {entry['mean']:.3f} | {entry['low']:.3f} to {entry['high']:.3f} |"
            )
    how = "mean of the tasks" if scores["weighting"] == "strata" else "mean over images"
    return "\n".join([*lines, "", f"Overall is the {how}. {_about(scores)}.", ""])


STYLE = """
:root { color-scheme: light dark; --ink: #1c1c22; --dim: #666; --page: #fafafa; --card: #fff; --line: #ddd;
  --good: #1a7f37; --bad: #c62828 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8ee; --dim: #a0a0aa; --page: #16161a; --card: #202026; --line: #383840;
    --good: #4cc76a; --bad: #ff7b72 }
}
body { font: 14px/1.4 system-ui, sans-serif; color: var(--ink); background: var(--page); max-width: 76rem;
  margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse } td, th { padding: .15rem .9rem .15rem 0; text-align: left }
.dim, small { color: var(--dim) }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); gap: .8rem; margin-top: 1rem }
article { background: var(--card); border: 1px solid var(--line); border-top: 4px solid var(--bad);
  border-radius: 6px; padding: .6rem; overflow-wrap: anywhere }
article.good { border-top-color: var(--good) }
img { width: 100%; border-radius: 4px; display: block } p { margin: .3rem 0 }
.reason { color: var(--bad); white-space: pre-line } select { font: inherit }
[hidden], main[data-show=good] article:not(.good), main[data-show=bad] article.good { display: none }
"""
SCRIPT = """
const main=document.querySelector('main'),show=document.querySelector('#show'),tag=document.querySelector('#tag');
show.onchange=()=>main.dataset.show=show.value;
tag.onchange=()=>main.querySelectorAll('article').forEach(a=>a.hidden=tag.value!=''&&a.dataset.tag!=tag.value);
"""


def gallery(scores: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """A page that needs nothing but the pictures beside it: every image, its prompt, and why it counts or not."""
    lines = "".join(
        f"<tr><td>{html.escape(name)}<td>{entry['items']}<td>{entry['mean']:.3f}"
        f"<td>{entry['low']:.3f} to {entry['high']:.3f}"
        for name, entry in _lines(scores)
        if entry["mean"] is not None
    )
    options = "".join(f"<option>{html.escape(tag)}" for tag in scores["tags"])
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(_title(scores))}</title><style>{STYLE}</style>"
        f'<h1>{html.escape(_title(scores))}</h1><p class="dim">{html.escape(_about(scores))}'
        f"<table><tr><th>task<th>images<th>correct<th>95% interval{lines}</table>"
        f'<p><label>Show <select id="show"><option value="">all<option value="good">correct'
        f'<option value="bad">incorrect</select></label> '
        f'<label>of <select id="tag"><option value="">all tasks{options}</select></label></p>'
        f"<main>{''.join(map(_card, rows))}</main><script>{SCRIPT}</script></html>\n"
    )


def _card(row: Row) -> str:
    parts = [
        f'<article class="{"good" if row.correct else "bad"}" data-tag="{html.escape(row.tag)}">',
        f'<img loading="lazy" src="{quote(row.file)}" alt="{html.escape(row.prompt)}">',
        f"<p><b>{html.escape(row.prompt)}</b>",
    ]
    if row.thought:
        parts.append(f"<p><i>{html.escape(row.thought)}</i>")
    if row.text and row.text != row.prompt:
        parts.append(f"<p>painted: {html.escape(row.text)}")
    if row.reason:
        parts.append(f'<p class="reason">{html.escape(row.reason)}')
    parts.append(f"<p><small>{'correct' if row.correct else 'incorrect'}, seen: {html.escape(row.seen)}</small>")
    parts.append(f"<p><small>{html.escape(row.tag)} {html.escape(row.id)}/{row.index}</small></article>\n")
    return "".join(parts)


def sheet(out: Path, rows: Sequence[Row], columns: int = 10, side: int = 128) -> Any:
    """A contact sheet of the first images of every tag in turn, framed in green or red, with their prompts."""
    from PIL import Image, ImageDraw, ImageFont

    rows = [row for row in rows if row.index == 0 and (out / row.file).is_file()]  # users do tidy up
    tags = dict.fromkeys(row.tag for row in rows)
    turns = zip_longest(*([row for row in rows if row.tag == tag] for tag in tags))
    chosen = sorted([row for turn in turns for row in turn if row][:SHEET], key=lambda row: list(tags).index(row.tag))
    wide, high, font = side + 16, side + 62, ImageFont.load_default(10)
    columns = min(columns, len(chosen)) or 1
    page = Image.new("RGB", (columns * wide, max(1, -(-len(chosen) // columns)) * high), "white")
    pen = ImageDraw.Draw(page)
    for number, row in enumerate(chosen):
        x, y = number % columns * wide + 8, number // columns * high + 8
        colour = (26, 127, 55) if row.correct else (198, 40, 40)
        pen.rectangle((x - 4, y - 4, x + side + 3, y + side + 3), fill=colour)
        page.paste(open_picture(out / row.file).convert("RGB").resize((side, side)), (x, y))
        for line, text in enumerate(textwrap.wrap(row.prompt, 25)[:4]):
            pen.text((x - 4, y + side + 6 + 12 * line), text, fill=(28, 28, 34), font=font)
    return page
