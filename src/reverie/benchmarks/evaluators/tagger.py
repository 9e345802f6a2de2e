"""The words of a prompt, with their part of speech, and its noun phrases: spaCy, as T2I-CompBench has it.

A pipeline is an installed package such as en_core_web_sm, or the folder of one. It needs a tagger and a parser.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

ADJECTIVE = "ADJ"


@dataclass(frozen=True)
class Words:
    """What the tagger says about a prompt."""

    tokens: tuple[tuple[str, str], ...]
    """Word and part of speech, in spaCy's universal tags."""
    lemmas: tuple[str, ...]
    """The dictionary form of each word, in lower case; the word itself where the pipeline knows none."""
    noun_chunks: tuple[str, ...]

    def without_adjectives(self) -> str:
        """The words but for the adjectives, as CLIP is shown a complex prompt."""
        return " ".join(word for word, tag in self.tokens if tag != ADJECTIVE)


def check(name: str) -> None:
    """ValueError, in one sentence, where spaCy or the pipeline is not here. Loads neither."""
    from importlib.util import find_spec

    if find_spec("spacy") is None:
        raise ValueError("the tagger is spaCy, which is not installed: pip install 'reverie[evaluators]'.")
    if Path(name).is_dir():
        if not (Path(name) / "config.cfg").is_file():
            raise ValueError(f"{name} holds no config.cfg, so it is no spaCy pipeline; give the folder that has one.")
    elif not name.isidentifier() or find_spec(name) is None:
        raise ValueError(
            f"the spaCy pipeline {name} is not here: python -m spacy download en_core_web_sm, or give the folder of "
            f"one (tagger=FOLDER)."
        )


class Tagger:
    """A loaded pipeline; each prompt is read once."""

    def __init__(self, pipeline: Any, name: str = ""):
        self.pipeline, self.name = pipeline, name
        self.words = lru_cache(maxsize=4096)(self._words)

    @classmethod
    def load(cls, name: str) -> Tagger:
        check(name)
        import spacy

        try:
            pipeline = spacy.load(name)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{name} is no whole spaCy pipeline ({str(error).splitlines()[0]}).") from error
        found = pipeline("a red cat sits on two large boxes")
        for part, there in (("tags", any(token.pos for token in found)), ("a parser", found.has_annotation("DEP"))):
            if not there:
                raise ValueError(f"the spaCy pipeline {name} gives no {part}; take one such as en_core_web_sm.")
        return cls(pipeline, f"{name} {pipeline.meta.get('version', '')}".strip())

    def _words(self, prompt: str) -> Words:
        found = self.pipeline(prompt)
        return Words(
            tuple((token.text, token.pos_) for token in found),
            tuple((token.lemma_ or token.text).lower() for token in found),
            tuple(chunk.text for chunk in found.noun_chunks),
        )
