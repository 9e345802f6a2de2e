"""Whether a prompt leaves room for its image, found out before a model is loaded: the tokenizer alone is opened."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reverie.models.registry import whole_folder

if TYPE_CHECKING:
    from reverie.models.janus_text import JanusTokenizer
    from reverie.models.registry import Source
    from reverie.models.showo_text import ShowoTokenizer


def check_length(source: Source, prompt: str, beside: int = 0) -> None:
    """ValueError for a prompt that leaves no room for the image in the model's context. Needs the tokenizer only.

    beside: tokens that stand in the prompt besides its text."""
    if source.folder is None:
        return
    if source.family == "showo":
        words = _showo_tokenizer(source.folder)
        count = len(words.encode(prompt)) + 3
        if count > words.longest + 1:
            raise ValueError(
                f"the prompt has {count - 3} tokens, but {source.name} reads at most {words.longest - 2}; shorten it."
            )
        return
    if source.family != "janus":
        return
    limit, image = context(source.config), image_length(source.config)
    count = len(_tokenizer(whole_folder(source.folder)).painting_ids(prompt)) + beside
    if count + image > limit:
        raise ValueError(
            f"the prompt has {count} tokens, but {source.name} reads at most {limit - image} beside the {image} of the "
            f"image; shorten it."
        )


def context(config: dict[str, Any]) -> int:
    """Tokens that a Janus configuration reads at most."""
    section = config.get("language_config") or config.get("text_config") or {}
    return section.get("max_position_embeddings", 2048)


def image_length(config: dict[str, Any]) -> int:
    """Image tokens of a Janus configuration, as far as it says so; 576 is that of the public ones."""
    if "gen_grid" in config:
        return config["gen_grid"] ** 2
    see = (config.get("vision_config") or {}).get("params") or config.get("vision_config") or {}
    codes = (config.get("gen_vision_config") or {}).get("params") or {}
    if "patch" in codes and "ch_mult" in codes:
        return (see["image_size"] // (2 ** (len(codes["ch_mult"]) - 1) * codes["patch"])) ** 2
    return (see["image_size"] // see["patch_size"]) ** 2 if "image_size" in see and "patch_size" in see else 576


@lru_cache(maxsize=4)
def _tokenizer(folder: Path) -> JanusTokenizer:
    from reverie.models.janus_text import JanusTokenizer

    return JanusTokenizer.load(folder, image_size=1)  # pictures are not its business here


@lru_cache(maxsize=4)
def _showo_tokenizer(folder: Path) -> ShowoTokenizer:
    from reverie.models.showo_parts import find_parts, read_config
    from reverie.models.showo_text import ShowoTokenizer

    parts = find_parts(folder)
    config = read_config(parts)
    return ShowoTokenizer.load(parts.phi, config["llm_vocab_size"], config.get("max_seq_length", 128))
