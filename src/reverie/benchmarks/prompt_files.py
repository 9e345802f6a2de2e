"""Where the prompt files of the public benchmarks come from, and reading them with care.

The files are not part of this package: some have no licence, some are for non-commercial use. They are read from a
folder that the user has (a clone of the benchmark, or the folder with the file itself), or, where the authors publish
them there, from the Hugging Face hub. A file that is missing, damaged or cut short is a ValueError that says where to
get it and under which licence.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Source:
    """Where a benchmark's files are published."""

    name: str
    where: str
    licence: str
    hub: str | None = None
    """The data set on the Hugging Face hub, where the authors publish the files there."""
    sums: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of files of the commit that the rules were checked against."""

    def hint(self) -> str:
        return f"get it from {self.where} (licence: {self.licence})"

    def locate(self, folder: str | Path | None, name: str) -> Path:
        """The file `name` below `folder` or in it, or `folder` itself where that is the file; without a folder, from
        the hub. ValueError if it is not there."""
        if folder is None:
            return self._fetch(name)
        if Path(folder).is_file() and Path(folder).name == Path(name).name:
            return Path(folder)
        for path in (Path(folder) / name, Path(folder) / Path(name).name):
            if path.is_file():
                return path
        raise ValueError(f"{self.name}: there is no {name} in {folder}; {self.hint()}.")

    def _fetch(self, name: str) -> Path:
        if self.hub is None:
            raise ValueError(f"{self.name} is not on the Hugging Face hub: {self.hint()} and give its folder as data.")
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            return Path(hf_hub_download(self.hub, name, repo_type="dataset"))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise ValueError(f"{self.name}: {name} could not be fetched from {self.hub}; {self.hint()}.") from error

    def broken(self, path: Path, what: str) -> ValueError:
        return ValueError(f"{self.name}: {path} {what}: it is damaged or not the published file; {self.hint()}.")

    # ------------------------------------------------------------------------------------------ reading

    def text(self, path: Path) -> str:
        """The file as text. Warns where it is another version than the one that the rules were checked against."""
        data = path.read_bytes()
        known = {Path(name).name: digest for name, digest in self.sums.items()}.get(path.name)
        if known and hashlib.sha256(data).hexdigest() != known:
            warnings.warn(
                f"{self.name}: {path} is not the version that the rules were checked against; "
                "scores may differ from published ones.",
                stacklevel=2,
            )
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise self.broken(path, "is not UTF-8") from error

    def lines(self, path: Path, number: int | None = None) -> list[str]:
        """Its lines without their ends and what follows a tab; empty lines do not count."""
        found = [line.split("\t")[0].rstrip() for line in self.text(path).split("\n") if line.strip()]
        self.check_number(path, found, number)
        return found

    def records(self, path: Path, number: int | None = None, needed: Sequence[str] = ()) -> list[dict[str, Any]]:
        """The objects of a JSON list or a JSON Lines file, each with all the needed fields."""
        text = self.text(path)
        try:
            found = (
                json.loads(text) if path.suffix == ".json" else [json.loads(s) for s in text.split("\n") if s.strip()]
            )
        except json.JSONDecodeError as error:
            raise self.broken(path, f"is no JSON ({error.msg}, line {error.lineno})") from error
        if not isinstance(found, list) or not all(isinstance(record, dict) for record in found):
            raise self.broken(path, "is not a list of records")
        for place, record in enumerate(found, 1):
            for key in needed:
                if key not in record:
                    raise self.broken(path, f"has no {key!r} in record {place}")
        self.check_number(path, found, number)
        return found

    def check_number(self, path: Path, found: Sequence[object], number: int | None) -> None:
        if not found or (number is not None and len(found) != number):
            wanted = "some" if number is None else number
            raise self.broken(path, f"holds {len(found)} prompts, not {wanted}")


def find_picture(folder: Path, name: str, suffixes: Sequence[str] = (".png", ".jpg", ".jpeg", ".webp")) -> Path | None:
    """The picture `name` (given with one suffix), under any of the suffixes that the official scripts read."""
    stem = folder / name
    for suffix in (stem.suffix, *suffixes):
        path = stem.parent / (stem.name.removesuffix(stem.suffix) + suffix)
        if path.is_file():
            return path
    return None
