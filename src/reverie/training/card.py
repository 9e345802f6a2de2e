"""Model cards: what a run was, from its own records (`recipe.json`, `log.jsonl`), as a README beside the weights; and
what a checkpoint says for this program."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..files import write_atomically


def write_card(run: str | Path, folder: str | Path, title: str, notes: Sequence[str] = ()) -> Path:
    """Writes `folder`/README.md about the finished run in `run`; returns its path."""
    run, folder = Path(run), Path(folder)
    settings = json.loads((run / "recipe.json").read_text("utf-8"))
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    always = set.intersection(*(set(row) for row in rows))  # stages of a run may log different things
    shown = [name for name in rows[-1] if name in always - {"step", "minutes", "lr", "grad_norm"}]
    lines = [f"# {title}", "", *notes, "", "## Recipe", "", "```yaml"]
    lines += [yaml.safe_dump(settings["recipe"], sort_keys=False).strip(), "```", ""]
    lines += ["## Learning curve", "", "Mean of the logged values of each tenth of the run.", ""]
    lines += [f"| step | minutes | {' | '.join(shown)} |", "|" + "---|" * (len(shown) + 2)]
    for tenth in range(10):
        part = rows[len(rows) * tenth // 10 : len(rows) * (tenth + 1) // 10]
        if part:
            means = [sum(row[name] for row in part) / len(part) for name in shown]
            numbers = " | ".join(f"{mean:.4g}" for mean in means)
            lines.append(f"| {part[-1]['step']:.0f} | {part[-1]['minutes']:.0f} | {numbers} |")
    path = folder / "README.md"
    write_atomically(path, lambda part: part.write_text("\n".join(lines) + "\n", "utf-8"))
    return path


def note(folder: str | Path, about: Mapping[str, Any]) -> None:
    """Adds to what the config.json of a checkpoint says for this program (`reverie`)."""
    path = Path(folder) / "config.json"
    raw = json.loads(path.read_text("utf-8"))
    text = json.dumps(raw | {"reverie": {**(raw.get("reverie") or {}), **about}}, indent=2) + "\n"
    write_atomically(path, lambda part: part.write_text(text, "utf-8"))
