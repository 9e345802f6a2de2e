"""What is kept: an SQLite index of runs and uploads, and beside it a folder for each run with its trace.

    DATA/index.sqlite        runs, uploads, and which run uses which upload (write-ahead log)
    DATA/runs/ID/trace/      events.jsonl and pictures, as `events.Trace` writes them
    DATA/uploads/ID.png      what was uploaded, decoded and written anew

The index is written by the server alone. A run whose last state could not be written (the disk is full) keeps it in
memory, and it is written with the next change that succeeds.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reverie.studio.request import Request
from reverie.studio.tail import finished_pictures, trace_lines

FINAL = ("done", "failed", "cancelled")
SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, created REAL NOT NULL, kind TEXT NOT NULL,
    prompt TEXT NOT NULL, model TEXT NOT NULL, client TEXT NOT NULL, grp TEXT, request TEXT NOT NULL,
    state TEXT NOT NULL, error TEXT, attempt INTEGER NOT NULL DEFAULT 1, seconds REAL,
    bytes INTEGER NOT NULL DEFAULT 0, pictures TEXT NOT NULL DEFAULT '[]');
CREATE TABLE IF NOT EXISTS uploads (
    id TEXT PRIMARY KEY, created REAL NOT NULL, width INTEGER NOT NULL, height INTEGER NOT NULL,
    bytes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS used (run TEXT NOT NULL, upload TEXT NOT NULL, PRIMARY KEY (run, upload));
CREATE INDEX IF NOT EXISTS by_group ON runs (grp) WHERE grp IS NOT NULL;
CREATE INDEX IF NOT EXISTS by_upload ON used (upload);
"""
VERSION = 2
"""Of the schema; an index of another version is left alone."""
UNUSED_UPLOAD_HOURS = 24
"""An upload that no run uses is kept so long."""


@dataclass(frozen=True)
class Row:
    """A run as the index knows it."""

    id: str
    created: float
    request: Request
    state: str
    error: str | None
    attempt: int
    seconds: float | None
    client: str
    bytes: int
    pictures: tuple[str, ...] = ()
    """Names of the finished pictures, once the run is over."""


def default_data() -> Path:
    """The user's folder for data, by the rules of the platform (XDG on Linux)."""
    if os.name == "nt":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "reverie"
    mac = Path.home() / "Library" / "Application Support"
    usual = mac if mac.is_dir() else Path.home() / ".local" / "share"
    return Path(os.environ.get("XDG_DATA_HOME") or usual) / "reverie"


class Store:
    """ValueError if the folder cannot be used, or another server uses it."""

    def __init__(self, folder: Path):
        self.folder = folder
        for part in ("runs", "uploads"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder)
        try:
            self._db = sqlite3.connect(folder / "index.sqlite", isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            if (version := self._db.execute("PRAGMA user_version").fetchone()[0]) not in (0, VERSION):
                raise ValueError(f"{folder} was written by another version (index {version}); give another --data.")
            self._db.executescript(f"{SCHEMA} PRAGMA user_version = {VERSION};")
        except sqlite3.DatabaseError as error:
            raise ValueError(f"{folder / 'index.sqlite'} cannot be used ({error}); move it away.") from error
        self._unsaved: dict[str, tuple[Any, ...]] = {}

    def close(self) -> None:
        self._save_rest()
        self._db.close()
        self._lock.close()

    # Runs.

    def add(self, request: Request, client: str) -> Row:
        """A new run, queued. sqlite3.OperationalError if it cannot be written down."""
        created = time.time()
        run = f"{time.strftime('%Y%m%d-%H%M%S', time.localtime(created))}-{secrets.token_hex(4)}"
        values = (run, created, request.kind, request.prompt, request.model, client, request.group)
        with self._transaction():
            self._db.execute(
                "INSERT INTO runs (id, created, kind, prompt, model, client, grp, request, state) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'queued')",
                (*values, json.dumps(request.to_json(), ensure_ascii=False)),
            )
            self._db.executemany("INSERT OR IGNORE INTO used VALUES (?, ?)", [(run, u) for u in request.uploads])
        return Row(run, created, request, "queued", None, 1, None, client, 0)

    def update(
        self, run: str, state: str, error: str | None = None, attempt: int = 1, seconds: float | None = None
    ) -> None:
        """Writes a run's state down; if the disk is full it is kept in memory until it can be."""
        size = _size(self.run_folder(run)) if state in FINAL else 0
        pictures = finished_pictures(trace_lines(self.trace(run))) if state in FINAL else []
        self._unsaved[run] = (state, error, attempt, seconds, size, json.dumps(pictures), run)
        self._save_rest()

    def _save_rest(self) -> None:
        for run, values in list(self._unsaved.items()):
            try:
                self._db.execute(
                    "UPDATE runs SET state = ?, error = ?, attempt = ?, seconds = ?, bytes = ?, pictures = ? "
                    "WHERE id = ?",
                    values,
                )
            except sqlite3.OperationalError:
                return  # as `update` says; nothing is lost while the server lives
            del self._unsaved[run]

    def get(self, run: str) -> Row | None:
        return next(self._rows("WHERE id = ?", (run,)), None)

    def find(self, query: str = "", kind: str = "", group: str = "", limit: int = 50, before: str = "") -> list[Row]:
        """The latest runs first: those whose prompt holds all words of `query`, older than the run `before`."""
        where, values = ["1"], list[Any]()
        for word in query.split():
            where.append("prompt LIKE ? ESCAPE '\\'")
            values.append("%" + word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "%")
        for column, value in (("kind", kind), ("grp", group)):
            if value:
                where.append(f"{column} = ?")
                values.append(value)
        if before:
            where.append("number < (SELECT number FROM runs WHERE id = ?)")
            values.append(before)
        return list(self._rows(f"WHERE {' AND '.join(where)} ORDER BY number DESC LIMIT ?", (*values, limit)))

    def unfinished(self) -> list[Row]:
        """Runs that an earlier server left behind."""
        return list(self._rows("WHERE state IN ('queued', 'running')", ()))

    def delete(self, run: str) -> None:
        """Forgets a run and removes its folder."""
        with self._transaction():
            self._db.execute("DELETE FROM used WHERE run = ?", (run,))
            self._db.execute("DELETE FROM runs WHERE id = ?", (run,))
        self._unsaved.pop(run, None)
        shutil.rmtree(self.run_folder(run), ignore_errors=True)

    def run_folder(self, run: str) -> Path:
        return self.folder / "runs" / run

    def trace(self, run: str) -> Path:
        return self.run_folder(run) / "trace"

    def _rows(self, rest: str, values: tuple[Any, ...]) -> Iterator[Row]:
        columns = "id, created, request, client, state, error, attempt, seconds, bytes, pictures"
        for row in self._db.execute(f"SELECT {columns} FROM runs {rest}", values).fetchall():
            run, created, request, client = row[:4]
            state, error, attempt, seconds, size, pictures = self._unsaved.get(run, (*row[4:], run))[:-1]
            asked, names = Request.from_json(json.loads(request)), tuple(json.loads(pictures))
            yield Row(run, created, asked, state, error, attempt, seconds, client, size, names)

    # Uploads.

    def add_upload(self, upload: str, width: int, height: int) -> None:
        path = self.upload(upload)
        values = (upload, time.time(), width, height, path.stat().st_size)
        self._db.execute("INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, ?, ?)", values)

    def upload(self, upload: str) -> Path:
        return self.folder / "uploads" / f"{upload}.png"

    def upload_here(self, upload: str) -> Path:
        """The file of an upload; ValueError if it is not here."""
        path = self.upload(upload)
        if not path.is_file():
            raise ValueError(f"there is no upload {upload!r} (any more); send the picture again.")
        return path

    # Cleaning.

    def clean(self, keep_days: float | None, keep_bytes: int | None, now: float | None = None) -> list[str]:
        """Deletes finished runs that are older than so many days, then the oldest ones until the rest is small enough;
        then uploads that no run uses. Returns the runs that are gone."""
        now = time.time() if now is None else now
        final = f"state IN {FINAL}"
        gone = []
        if keep_days is not None:
            old = self._db.execute(f"SELECT id FROM runs WHERE {final} AND created < ?", (now - keep_days * 86400,))
            gone += [run for (run,) in old.fetchall()]
        if keep_bytes is not None:
            rows = self._db.execute(f"SELECT id, bytes FROM runs WHERE {final} ORDER BY number DESC").fetchall()
            total = 0
            for run, size in rows:
                total += size
                if total > keep_bytes and run not in gone:
                    gone.append(run)
        for run in gone:
            self.delete(run)
        stale = self._db.execute(
            "SELECT id FROM uploads WHERE created < ? AND id NOT IN (SELECT upload FROM used)",
            (now - UNUSED_UPLOAD_HOURS * 3600,),
        ).fetchall()
        for (upload,) in stale:
            self._db.execute("DELETE FROM uploads WHERE id = ?", (upload,))
            self.upload(upload).unlink(missing_ok=True)
        return gone

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


class _Transaction:
    """All or nothing; sqlite3's own context manager does not begin one when `isolation_level` is None."""

    def __init__(self, db: sqlite3.Connection):
        self.db = db

    def __enter__(self) -> None:
        self.db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self.db.execute("COMMIT")
        finally:
            if self.db.in_transaction:  # an error inside, or a COMMIT that found the disk full
                self.db.execute("ROLLBACK")


def _size(folder: Path) -> int:
    """Bytes of all files in a folder. The worker may still be writing there: what vanishes meanwhile counts nothing."""
    total = 0
    for name, _, files in os.walk(folder):
        for file in files:
            with suppress(OSError):
                total += (Path(name) / file).stat().st_size
    return total


def _lock(folder: Path) -> Any:
    """Two servers over one folder would each think the other's runs their own."""
    file = (folder / "lock").open("w")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass  # Windows has no flock; two servers over one folder are not kept apart there
    except OSError as error:
        file.close()
        raise ValueError(f"{folder} is in use by another server; stop that one, or give another --data.") from error
    return file


def row_json(row: Row) -> Mapping[str, Any]:
    """What lists of runs say about each."""
    request = row.request
    return {
        "id": row.id,
        "created": row.created,
        "state": row.state,
        "error": row.error,
        "kind": request.kind,
        "prompt": request.prompt,
        "model": request.model,
        "preset": request.preset,
        "seed": request.seed,
        "n": request.n,
        "group": request.group,
        "seconds": row.seconds,
    }
