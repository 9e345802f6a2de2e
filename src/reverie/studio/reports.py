"""Evaluations and training runs that lie on this machine, for reading: scores, curves, sample sheets.

A report is a folder with `scores.json` (an evaluation, see benchmarks/report.py) or `log.jsonl` (a training run, see
training/loop.py) somewhere below the folders that `--reports` names. It is called INDEX/PATH, where INDEX counts
those folders from 0. Nothing outside them can be reached, by `..`, links or otherwise.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from reverie.studio.web import settings_of

SIGNS = {"scores.json": "evaluation", "log.jsonl": "training"}
"""What a folder holds that is a report, and which kind it is."""
DEPTH = 5
MOST_REPORTS = 500
MOST_POINTS = 400
MOST_PICTURES = 200
LONGEST_FILE = 64 << 20
PICTURES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
TEXTS = (".json", ".jsonl", ".md", ".csv", ".yaml", ".txt")

router = APIRouter(prefix="/api/reports")


@router.get("")
async def reports(request: Request) -> dict[str, Any]:
    """All reports, the latest first."""
    return {"reports": await run_in_threadpool(found, settings_of(request).reports)}


@router.get("/{path:path}")
async def report(request: Request, path: str) -> Any:
    """A report, or a file inside one."""
    place = below(settings_of(request).reports, path)
    if place is None:
        raise HTTPException(404, f"there is no report {path!r}.")
    if place.is_dir():
        return await run_in_threadpool(told, place, path.rstrip("/"))
    kind = PICTURES.get(place.suffix.lower()) or ("text/plain" if place.suffix.lower() in TEXTS else None)
    if kind is None:
        raise HTTPException(404, f"{path!r} is not a picture, table or log.")
    return FileResponse(place, media_type=kind)


def below(roots: tuple[Path, ...], path: str) -> Path | None:
    """The file or folder that a name stands for, if it is really there and below its root."""
    index, _, rest = path.partition("/")
    if not (index.isdecimal() and int(index) < len(roots)) or "\0" in rest:
        return None
    root = roots[int(index)].resolve()
    try:
        place = (root / rest.lstrip("/")).resolve(strict=True)
    except (OSError, RuntimeError):  # not there, or links in a circle
        return None
    hidden = any(part.startswith(".") for part in place.relative_to(root).parts) if place.is_relative_to(root) else True
    return None if hidden else place


def found(roots: tuple[Path, ...]) -> list[dict[str, Any]]:
    """What `GET /api/reports` lists."""
    rows: list[dict[str, Any]] = []
    for index, root in enumerate(roots):
        for folder, sign in _signs(root):
            relative = folder.relative_to(root).as_posix()
            rows.append(
                {
                    "path": f"{index}/{relative}" if relative != "." else str(index),
                    "kind": SIGNS[sign],
                    "title": relative if relative != "." else root.name,
                    "modified": (folder / sign).stat().st_mtime,
                }
            )
    return sorted(rows, key=lambda row: row["modified"], reverse=True)[:MOST_REPORTS]


def _signs(root: Path) -> Iterator[tuple[Path, str]]:
    for name, folders, files in os.walk(root):
        folder = Path(name)
        deep = len(folder.relative_to(root).parts) >= DEPTH
        folders[:] = [] if deep else sorted(f for f in folders if not f.startswith("."))
        sign = next((sign for sign in SIGNS if sign in files), None)
        if sign is not None:
            yield folder, sign


def told(folder: Path, path: str) -> dict[str, Any]:
    """A report as one object; files that are not there are null."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    samples = sorted(p for p in (folder / "samples").glob("*") if p.is_file()) if (folder / "samples").is_dir() else []
    pictures = [p for p in (*files, *samples) if p.suffix.lower() in PICTURES][-MOST_PICTURES:]
    texts = [p for p in files if p.suffix.lower() in TEXTS]
    names = {p.name for p in files}
    return {
        "path": path,
        "kind": next((kind for sign, kind in SIGNS.items() if sign in names), None),
        "scores": _json(folder / "scores.json"),
        "run": _json(folder / "run.json"),
        "recipe": _json(folder / "recipe.json"),
        "log": _log(folder / "log.jsonl"),
        "pictures": [_url(path, folder, p) for p in pictures],
        "files": [_url(path, folder, p) for p in texts],
        "parts": [f"{path}/{p.name}" for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")],
    }


def _url(path: str, folder: Path, file: Path) -> str:
    return f"/api/reports/{quote(path)}/{quote(file.relative_to(folder).as_posix())}"


def _json(path: Path) -> Any:
    if not path.is_file() or path.stat().st_size > LONGEST_FILE:
        return None
    try:
        return finite(json.loads(path.read_text("utf-8")))
    except ValueError:
        return None  # half of a file that somebody else writes; the next look finds it whole


def _log(path: Path) -> list[Any] | None:
    """The rows of a log, evenly thinned to a number that can be drawn; the last one is always there."""
    if not path.is_file() or path.stat().st_size > LONGEST_FILE:
        return None
    lines = [
        line for line in path.read_text("utf-8", errors="replace").splitlines(keepends=True) if line.endswith("\n")
    ]
    step = max(1, math.ceil(len(lines) / MOST_POINTS))
    rows = []
    for line in lines[::-1][::step][::-1]:
        try:
            rows.append(finite(json.loads(line)))
        except ValueError:
            continue  # a line that two writers made together; the others still draw a curve
    return rows


def finite(value: Any) -> Any:
    """The same without numbers that JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [finite(entry) for entry in value]
    return {key: finite(entry) for key, entry in value.items()} if isinstance(value, dict) else value
