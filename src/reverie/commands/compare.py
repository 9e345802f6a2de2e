"""`reverie compare A B`: by how much run B of a benchmark is better than run A, by prompt, and where they differ."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SETTINGS = ("model", "plan", "seed", "judge", "wording", "official", "images")
SHOWN = 20  # prompts listed of each kind, unless all are asked for


def compare(arguments: argparse.Namespace) -> int:
    from reverie.benchmarks.paired import compare as paired

    first, second = arguments.first, arguments.second
    gains = paired(first, second)
    settings = differing_settings(first, second)
    better, worse = changed_prompts(first, second)
    if arguments.json:
        told = {
            "first": first,
            "second": second,
            "settings": settings,
            "gain": {name: vars(gain) for name, gain in gains.items()},
            "better": better,
            "worse": worse,
        }
        print(json.dumps(told, ensure_ascii=False))
        return 0
    for name, (one, other) in settings.items():
        print(f"{name}: {told_short(one)} in {first}, {told_short(other)} in {second}")
    if "judge" in settings:
        print("The judges differ, so this compares judges as well as pictures.")
    width = max(map(len, gains))
    for name, gain in gains.items():
        low, high = gain.low or 0.0, gain.high or 0.0
        sure = "" if low <= 0 <= high else " *"
        print(f"{name:{width}}  {gain.mean:+.3f}  [{low:+.3f}, {high:+.3f}]  {gain.items} prompts{sure}")
    print("Second minus first, 95% intervals of a paired bootstrap over prompts; * where the interval leaves out 0.")
    for title, rows in (("Better", better), ("Worse", worse)):
        _print_rows(f"{title} in {second}", rows, None if arguments.all else SHOWN)
    return 0


def differing_settings(first: str | Path, second: str | Path) -> dict[str, tuple[Any, Any]]:
    """What the two runs were not given alike."""
    one, other = (json.loads((Path(folder) / "run.json").read_text("utf-8")) for folder in (first, second))
    return {name: (one.get(name), other.get(name)) for name in SETTINGS if one.get(name) != other.get(name)}


def changed_prompts(first: str | Path, second: str | Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The prompts of which the second run scored higher, in the mean over their images, and those of which it scored
    lower; largest change first."""
    from reverie.benchmarks.paired import scored_rows

    shares: list[dict[str, float]] = []
    prompts: dict[str, tuple[str, str]] = {}
    for folder in (first, second):
        found: dict[str, list[float]] = {}
        for row in scored_rows(folder):
            found.setdefault(row.id, []).append(row.value)
            prompts[row.id] = (row.tag, row.prompt)
        shares.append({name: sum(group) / len(group) for name, group in found.items()})
    better: list[dict[str, Any]] = []
    worse: list[dict[str, Any]] = []
    for name, before in shares[0].items():
        after = shares[1].get(name, before)
        change = {"id": name, "tag": prompts[name][0], "prompt": prompts[name][1], "first": before, "second": after}
        if after != before:
            (better if after > before else worse).append(change)
    for group in (better, worse):
        group.sort(key=lambda change: -abs(change["second"] - change["first"]))
    return better, worse


def told_short(setting: Any) -> str:
    """A setting in few words: of a plan only that it is one, with its main choices."""
    if isinstance(setting, Mapping):
        setting = ", ".join(f"{key} {value}" for key, value in setting.items() if not isinstance(value, Mapping))
    return "none" if setting is None else str(setting)


def _print_rows(title: str, rows: Sequence[Mapping[str, Any]], most: int | None) -> None:
    print(f"{title}: {len(rows)} prompts")
    for row in rows[:most]:
        print(f"  {row['first']:.2f} -> {row['second']:.2f}  {row['tag']} {row['id']}: {row['prompt']}")
    if most is not None and len(rows) > most:
        print(f"  and {len(rows) - most} more (--all shows them)")
