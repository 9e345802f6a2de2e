"""ThinkDiff's own feature shards: WebDataset tars, read in place through an index of byte ranges.

Each sample has `KEY.json` (the answer and its token ids) and `KEY.model.norm.output_embed.pth` and/or
`...input_embed.pth` (a bfloat16 tensor (tokens, D)); pictures in between are skipped. A tar is walked once; where its
members lie is kept in `NAME.tar.index.json` beside it, if the folder can be written.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..files import write_atomically
from ..vlms.states import LAST, FeatureStates
from .features import KINDS, FeatureFolder, Narrowed, Sample

MEMBERS = {"generated": "model.norm.output_embed.pth", "input": "model.norm.input_embed.pth"}


class TarFeatures:
    """A `FeatureSource` over the authors' shards, in the order of the paths given."""

    def __init__(self, paths: Sequence[str | Path], kind: str = "generated"):
        if kind not in KINDS:
            raise ValueError(f"kind={kind!r}: must be one of {', '.join(KINDS)}.")
        if not paths:
            raise ValueError("There are no shards; give a folder with .tar files.")
        self.kind, self.paths = kind, [Path(path) for path in paths]
        self.keys: list[str] = []
        # Millions of samples: numbers in arrays, not in objects. Columns: shard, answer's tokens, offset and size of
        # the JSON, offset and size of the features.
        tables = [self._table(number, path) for number, path in enumerate(self.paths)]
        self.table = np.concatenate(tables)
        if not len(self.table):
            raise ValueError(f"{self.paths[0]} and what comes with it hold no samples.")
        self.shards = [len(table) for table in tables]
        self.width, self.states = self[0].features.shape[1], LAST

    def _table(self, number: int, path: Path) -> np.ndarray:
        rows = tar_index(path)
        member = MEMBERS[self.kind]
        if missing := next((row["key"] for row in rows if member not in row["members"]), None):
            raise ValueError(f"{path}: the sample {missing} has no {member}; choose the other kind.")
        self.keys += [row["key"] for row in rows]
        table = [[number, row["tokens"], *row["members"]["json"], *row["members"][member]] for row in rows]
        return np.array(table, dtype=np.int64).reshape(len(rows), 6)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Sample:
        number, _, *places = self.table[index].tolist()
        path, key = self.paths[number], self.keys[index]
        told = json.loads(_read(path, places[:2]))
        try:
            features = torch.load(io.BytesIO(_read(path, places[2:])), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise ValueError(f"{path}: {key} holds more than a tensor, so it is not opened.") from error
        return Sample(key, features, tuple(told["output_token_ids"]), told["output_text"], told.get("prompt", ""))

    def tokens(self, index: int) -> int:
        return int(self.table[index, 1])


def tar_index(path: Path) -> list[dict[str, Any]]:
    """Where each sample's members lie: {"key", "tokens" of the answer, "members": {suffix: [offset, size]}}."""
    if not path.is_file():
        raise ValueError(f"There is no shard {path}.")
    kept = path.with_name(path.name + ".index.json")
    stamp = [path.stat().st_size, path.stat().st_mtime_ns]
    if kept.is_file():
        known = json.loads(kept.read_text("utf-8"))
        if known["stamp"] == stamp:
            return known["samples"]
    samples = _walk(path)
    if os.access(path.parent, os.W_OK):
        text = json.dumps({"stamp": stamp, "samples": samples})
        write_atomically(kept, lambda part: part.write_text(text, "utf-8"))
    return samples


def _walk(path: Path) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile():
                    folder, _, name = member.name.rpartition("/")
                    key, _, suffix = name.partition(".")
                    key = f"{folder}/{key}" if folder else key
                    row = found.setdefault(key, {"key": key, "members": {}})
                    row["members"][suffix] = [member.offset_data, member.size]
    except tarfile.TarError as error:
        raise ValueError(f"{path} is no whole tar file ({error}); fetch it again.") from error
    samples = [row for row in found.values() if "json" in row["members"]]
    for row in samples:
        row["tokens"] = len(json.loads(_read(path, row["members"]["json"]))["output_token_ids"])
    return samples


def _read(path: Path, place: Sequence[int]) -> bytes:
    with path.open("rb") as file:
        file.seek(place[0])
        return file.read(place[1])


def open_features(source: str | Path, kind: str = "generated", states: FeatureStates | None = None) -> Any:
    """The `FeatureSource` of a folder: ours if it has an index.json, else the authors' .tar shards in it. states: those
    of the folder's that a feature is to have; None: all."""
    found = _opened(source, kind)
    return found if states in (None, found.states) else Narrowed(found, states)


def _opened(source: str | Path, kind: str) -> Any:
    folder = Path(source)
    if not folder.is_dir():
        raise ValueError(f"There is no folder of features {folder}.")
    tars = sorted(folder.glob("*.tar"))
    if tars and not (folder / "index.json").is_file():
        return TarFeatures(tars, kind)
    found = FeatureFolder(folder)
    if found.kind != kind:
        raise ValueError(f"{folder} holds {found.kind} features, but {kind} ones are asked for.")
    return found
