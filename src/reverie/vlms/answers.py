"""Answers of served models on disk, so that nothing is asked or paid for twice.

An answer lies under the SHA-256 of everything that it depends on: the model's name, the whole conversation with its
pictures, and how it was sampled. Not the address: a server may move. Answers are kept as they came; what is
read from them can change later without asking again.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import write_atomically


@dataclass(frozen=True)
class Reply:
    """What a server answered. tokens: of the question and of the answer. logprobs: of the first token's likeliest
    alternatives, where they were asked for."""

    text: str
    finish: str | None = None
    model: str | None = None
    tokens: tuple[int, int] = (0, 0)
    logprobs: Mapping[str, float] = field(default_factory=dict)


class AnswerCache:
    """A folder of answers, two letters of the key a subfolder. Several threads and processes may share it."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._guard = threading.Lock()
        self._locks: dict[str, tuple[threading.Lock, int]] = {}

    def path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def get(self, key: str) -> Reply | None:
        """The answer, or None; a file that cannot be read counts as none."""
        try:
            found = json.loads(self.path(key).read_text("utf-8"))["reply"]
            return Reply(found["text"], found["finish"], found["model"], tuple(found["tokens"]), found["logprobs"])
        except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError):
            return None

    def put(self, key: str, question: Mapping[str, Any], reply: Reply) -> None:
        text = json.dumps({"question": question, "reply": vars(reply)}, ensure_ascii=False, indent=1)
        write_atomically(self.path(key), lambda partial: partial.write_text(text, "utf-8"))

    @contextmanager
    def asking(self, key: str) -> Iterator[None]:
        """While one thread asks, others with the same question wait, and find the answer then."""
        with self._guard:
            lock, waiting = self._locks.get(key, (threading.Lock(), 0))
            self._locks[key] = (lock, waiting + 1)
        try:
            with lock:
                yield
        finally:
            with self._guard:
                lock, waiting = self._locks[key]
                if waiting > 1:
                    self._locks[key] = (lock, waiting - 1)
                else:
                    del self._locks[key]


def key_of(question: Mapping[str, Any]) -> str:
    """SHA-256 of a question in canonical form."""
    return hashlib.sha256(json.dumps(question, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
