"""`reverie models`: what is shipped, what can be loaded from where, and how much memory the weights take."""

from __future__ import annotations

import json
from typing import Any

from reverie.models.registry import Entry, cached, entries

BYTES = {"float32": 4, "bfloat16": 2}


def models(as_json: bool) -> int:
    rows = [describe(entry) for entry in entries().values()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return 0
    head = ("name", "parameters", "float32", "bfloat16", "where", "licence", "what")
    table = [head]
    for row in rows:
        memory = [_size(row["memory"][name]) for name in BYTES]
        table.append((row["name"], _count(row["parameters"]), *memory, row["where"], row["licence"], row["summary"]))
    widths = [max(len(line[column]) for line in table) for column in range(len(head) - 1)]
    for line in table:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]))
    print("\nMemory is that of the weights; images and caches come on top. Any folder or hub id of a Janus works, too.")
    return 0


def describe(entry: Entry) -> dict[str, Any]:
    """One model as a JSON object; memory in bytes, None where it is not known yet."""
    count = entry.count()
    memory = {name: count and count * size for name, size in BYTES.items()}
    return {
        "name": entry.name,
        "id": entry.id,
        "kind": entry.kind,
        "summary": entry.summary,
        "parameters": count,
        "memory": memory,
        "where": _where(entry),
        "source": entry.source,
        "licence": entry.licence,
    }


def _where(entry: Entry) -> str:
    if entry.folder is not None:
        return "shipped" if entry.folder.is_dir() else "not in this installation"
    assert entry.id is not None
    return f"{entry.id} ({'here' if cached(entry.id) else 'fetched when asked for'})"


def _count(count: int | None) -> str:
    return "?" if count is None else f"{count / 1e9:.2f} G" if count >= 1e9 else f"{count / 1e6:.1f} M"


def _size(count: int | None) -> str:
    return "?" if count is None else f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
