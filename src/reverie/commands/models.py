"""`reverie models`: what is shipped, what can be loaded from where, and how much memory the weights take."""

from __future__ import annotations

import json
from typing import Any

from reverie.models.registry import BYTES, Entry, cached, entries, number_text, with_packing

SHOWN = ("float32", "bfloat16")


def models(as_json: bool) -> int:
    rows = [describe(entry) for entry in entries().values()]
    if as_json:
        print(json.dumps(rows, indent=2))
        return 0
    head = ("name", "parameters", *SHOWN, "where", "licence", "what")
    table = [head]
    for row in rows:
        memory = [with_packing(row["memory"][name], row["packing"][name]) for name in SHOWN]
        table.append(
            (row["name"], number_text(row["parameters"]), *memory, row["where"], row["licence"], row["summary"])
        )
    widths = [max(len(line[column]) for line in table) for column in range(len(head) - 1)]
    for line in table:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]))
    print(
        "\nMemory is that of the weights, with a second copy of most matrices where a CPU paints; caches come on top.\n"
        "Any folder or hub id of a Janus, a Show-o or a flow-matching pipeline of diffusers works, too, and any folder "
        "of a LlamaGen."
    )
    return 0


def describe(entry: Entry) -> dict[str, Any]:
    """One model as a JSON object; memory in bytes, None where it is not known yet; `packing` comes on top where a
    CPU paints."""
    count = entry.count()
    memory = {name: count and count * BYTES[name] for name in SHOWN}
    return {
        "name": entry.name,
        "id": entry.id,
        "kind": entry.kind,
        "summary": entry.summary,
        "parameters": count,
        "memory": memory,
        "packing": {name: entry.packing(name) for name in SHOWN},
        "where": _where(entry),
        "source": entry.source,
        "licence": entry.licence,
    }


def _where(entry: Entry) -> str:
    if entry.folder is not None:
        return "shipped" if entry.folder.is_dir() else "not in this installation"
    assert entry.id is not None
    return f"{entry.id} ({'here' if cached(entry.id) else 'fetched when asked for'})"
