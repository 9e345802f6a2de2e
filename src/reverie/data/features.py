"""Features of a VLM on disk, and the stream of them that trains an aligner.

A folder holds `index.json` and shards `features-000000.safetensors`, ... In a shard, all samples lie in one array, and
offsets tell where each begins, so that a sample is one contiguous read and a shard needs no unpickling:

    features (tokens, D)   starts (n + 1)      features of sample i are rows starts[i] .. starts[i + 1]
    ids (tokens)           id_starts (n + 1)   the VLM's token ids of its answer, in the same way

The header's metadata lists each sample's key, answer and question. Shards and index appear whole or not at all, the
index last: a writer that was killed goes on behind its last whole shard, and no sample is lost or doubled. The authors'
own WebDataset shards are read in webdataset.py.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import write_atomically
from ..vlms.states import LAST, FeatureStates

KINDS = ("generated", "input")
FORMAT = "reverie-features/1"
OPEN_SHARDS = 32
"""A window of shards is open at a time; mapped files cost address space, not memory."""


@dataclass(frozen=True)
class Sample:
    """An answer of a VLM: its features (n, D), the token ids it wrote, and the words it was asked and wrote."""

    key: str
    features: Tensor
    ids: tuple[int, ...]
    text: str = ""
    question: str = ""


@dataclass(frozen=True)
class FeatureKind:
    """What all samples of a folder share.

    kind: `generated`: feature i is what the output head read when it wrote token i of the answer; `input`: the last
    states of the question's own tokens. width: of a feature. model: the VLM that wrote. states: of which a feature is
    made, where that is not the last layer's alone.
    """

    kind: str
    width: int
    model: str
    dtype: str = "bfloat16"
    states: FeatureStates = LAST

    def __post_init__(self) -> None:
        object.__setattr__(self, "states", FeatureStates.told(self.states))  # an index has a mapping
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r}: must be one of {', '.join(KINDS)}.")
        if self.dtype not in ("bfloat16", "float16", "float32"):
            raise ValueError(f"dtype={self.dtype!r}: must be bfloat16, float16 or float32.")


class FeatureSource(Protocol):
    """Stored samples, each at hand by its number."""

    kind: str
    width: int
    states: FeatureStates
    shards: Sequence[int]
    """Samples of each shard, in the order in which they are numbered."""

    def __getitem__(self, index: int) -> Sample: ...

    def tokens(self, index: int) -> int:
        """Length of a sample's answer, known without reading its features."""


class Order:
    """The order in which samples are seen: an endless stream, shuffled anew in every epoch from (seed, epoch).

    Shards are shuffled, and samples within windows of `window` shards: random enough to learn from, and near enough
    that the disk reads few files at a time. `order[place]` is the number of the sample at that place of the stream.
    """

    def __init__(self, shards: Sequence[int], seed: int, window: int = 16):
        self.shards, self.seed, self.window = list(shards), seed, window
        self.starts = np.concatenate(([0], np.cumsum(self.shards)))
        self.count = int(self.starts[-1])
        if self.count == 0:
            raise ValueError("There are no samples to learn from.")
        self.epochs: OrderedDict[int, np.ndarray] = OrderedDict()

    def __getitem__(self, place: int) -> int:
        epoch, within = divmod(place, self.count)
        if epoch not in self.epochs:
            self.epochs[epoch] = self._shuffled(epoch)
            while len(self.epochs) > 2:  # a batch may begin in one epoch and end in the next
                self.epochs.popitem(last=False)
        return int(self.epochs[epoch][within])

    def _shuffled(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        shards = rng.permutation(len(self.shards))
        windows = []
        for first in range(0, len(shards), self.window):
            near = shards[first : first + self.window]
            samples = np.concatenate([np.arange(self.starts[i], self.starts[i + 1], dtype=np.int64) for i in near])
            windows.append(rng.permutation(samples))
        return np.concatenate(windows)


class FeatureWriter:
    """Fills a folder shard by shard; goes on with a folder that was begun, if it holds the same kind of features.

    `done` are the keys that whole shards hold already: leave those samples out. Close it (or use `with`) to write the
    last, shorter shard.
    """

    def __init__(self, folder: str | Path, what: FeatureKind, shard: int = 1024):
        """shard: samples of a shard. ValueError if the folder holds features of another kind."""
        if shard < 1:
            raise ValueError(f"shard={shard}: must be at least 1.")
        self.folder, self.what, self.size = Path(folder), what, shard
        self.waiting: list[Sample] = []
        self.shards: list[dict[str, Any]] = []
        self.done: set[str] = set()
        if (self.folder / "index.json").is_file():
            found = FeatureFolder(self.folder)
            if found.what != what:
                raise ValueError(f"{folder} holds {found.what}, not {what}; choose another folder.")
            self.shards = found.entries
            self.done = {key for number in range(len(self.shards)) for key in found.keys_of(number)}

    def add(self, sample: Sample) -> None:
        if sample.key in self.done:
            raise ValueError(
                f"The sample {sample.key} is in {self.folder} already; give every sample a key of its own."
            )
        if sample.features.ndim != 2 or sample.features.shape[1] != self.what.width:
            shape = list(sample.features.shape)
            raise ValueError(f"The features of {sample.key} have the shape {shape}, not (n, {self.what.width}).")
        if not sample.ids or (self.what.kind == "generated" and len(sample.ids) != len(sample.features)):
            raise ValueError(
                f"The answer of {sample.key} has {len(sample.ids)} tokens and {len(sample.features)} features."
            )
        self.done.add(sample.key)
        self.waiting.append(sample)
        if len(self.waiting) >= self.size:
            self._write()

    def close(self) -> None:
        if self.waiting or not self.shards:
            self._write()

    def __enter__(self) -> FeatureWriter:
        return self

    def __exit__(self, kind: object, *rest: object) -> None:
        if kind is None:  # after an error, what was whole stays, and the rest is done again
            self.close()

    def _write(self) -> None:
        samples, self.waiting = self.waiting, []
        name = f"features-{len(self.shards):06}.safetensors"
        if samples:
            tensors = {
                "features": torch.cat([s.features.to("cpu", getattr(torch, self.what.dtype)) for s in samples]),
                "starts": _starts([len(s.features) for s in samples]),
                "ids": torch.tensor([index for s in samples for index in s.ids], dtype=torch.int32),
                "id_starts": _starts([len(s.ids) for s in samples]),
            }
            told = json.dumps([[s.key, s.text, s.question] for s in samples], ensure_ascii=False)

            def write(part: Path) -> None:
                save_file(tensors, part, metadata={"samples": told})
                part.chmod(0o644)  # safetensors lets only the owner read

            write_atomically(self.folder / name, write)
            self.shards.append({"file": name, "samples": len(samples), "tokens": len(tensors["features"])})
        index = {"format": FORMAT, **asdict(self.what), "shards": self.shards}
        text = json.dumps(index, indent=1) + "\n"
        write_atomically(self.folder / "index.json", lambda part: part.write_text(text, "utf-8"))


def _starts(lengths: Sequence[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


class FeatureFolder:
    """A `FeatureSource` over a folder that `FeatureWriter` filled. Shards are mapped: a sample costs its own bytes."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        path = self.folder / "index.json"
        if not path.is_file():
            raise ValueError(
                f"{folder} holds no index.json, so no features; build them with `reverie data build features`."
            )
        index = json.loads(path.read_text("utf-8"))
        if index.get("format") != FORMAT:
            raise ValueError(f"{path} has the format {index.get('format')!r}, but {FORMAT!r} is read here.")
        told = {field.name: index[field.name] for field in fields(FeatureKind) if field.name in index}
        self.what, self.entries = FeatureKind(**told), list(index["shards"])
        self.kind, self.width, self.states = self.what.kind, self.what.width, self.what.states
        self.shards = [entry["samples"] for entry in self.entries]
        self.first = np.concatenate(([0], np.cumsum(self.shards, dtype=np.int64)))
        self.open: OrderedDict[int, _Shard] = OrderedDict()

    def __len__(self) -> int:
        return int(self.first[-1])

    def __getitem__(self, index: int) -> Sample:
        shard, row = self._find(index)
        return shard.sample(row)

    def tokens(self, index: int) -> int:
        shard, row = self._find(index)
        return int(shard.id_starts[row + 1] - shard.id_starts[row])

    def keys_of(self, number: int) -> list[str]:
        """Keys of the samples of one shard."""
        return [key for key, *_ in self._shard(number).told]

    def _find(self, index: int) -> tuple[_Shard, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = int(np.searchsorted(self.first, index, side="right")) - 1
        return self._shard(number), index - int(self.first[number])

    def _shard(self, number: int) -> _Shard:
        if number not in self.open:
            while len(self.open) >= OPEN_SHARDS:
                self.open.popitem(last=False)
            self.open[number] = _Shard(self.folder / self.entries[number]["file"], self.entries[number]["samples"])
        self.open.move_to_end(number)
        return self.open[number]

    def __getstate__(self) -> dict[str, Any]:
        # Mapped files stay behind when worker processes are started afresh.
        return self.__dict__ | {"open": OrderedDict()}


class Narrowed:
    """A `FeatureSource` that holds some of the states of another's features."""

    def __init__(self, source: FeatureSource, states: FeatureStates):
        """ValueError if the other lacks a state."""
        self.source, self.kind, self.shards, self.states = source, source.kind, source.shards, states
        self.columns = states.within(source.states, source.width // source.states.parts)
        self.width = len(self.columns)

    def __getitem__(self, index: int) -> Sample:
        sample = self.source[index]
        return replace(sample, features=sample.features[:, self.columns])

    def tokens(self, index: int) -> int:
        return self.source.tokens(index)


class _Shard:
    def __init__(self, path: Path, samples: int):
        try:
            self.file = safe_open(path, "pt").__enter__()
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path} is missing or damaged ({str(error).splitlines()[0]}); build it again.") from error
        self.told = json.loads(self.file.metadata()["samples"])
        if len(self.told) != samples:
            raise ValueError(f"{path} holds {len(self.told)} samples, but index.json says {samples}; build it again.")
        self.starts, self.id_starts = self.file.get_tensor("starts"), self.file.get_tensor("id_starts")
        self.ids, self.features = self.file.get_tensor("ids"), self.file.get_slice("features")

    def sample(self, row: int) -> Sample:
        begin, end = self.starts[row : row + 2].tolist()
        first, last = self.id_starts[row : row + 2].tolist()
        key, text, question = self.told[row]
        return Sample(key, self.features[begin:end], tuple(self.ids[first:last].tolist()), text, question)
