"""What loading from the transformers layout has in common: a checkpoint is looked at first, then fetched, then loaded.

`find` imports nothing heavy and reads no weights, so a wrong name costs a sentence and not a minute. `load` accepts no
checkpoint that lacks a tensor: transformers itself would fill it with random numbers and only warn.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from reverie.models.registry import (
    BYTES,
    HUB_ID,
    WEIGHT_SUFFIXES,
    count_parameters,
    memory_text,
    number_text,
    snapshots,
)

FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
PICKLES = ("*.bin",)
WHAT = {"AutoTokenizer": "tokenizer", "AutoImageProcessor": "image processor", "AutoProcessor": "processor"}
DAMAGE = (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError)
"""What transformers lets through of files that are not what they should be, beside errors of files themselves."""


@dataclass(frozen=True)
class Found:
    """A checkpoint of transformers, as far as it can be known without reading weights."""

    name: str
    """As the user wrote it."""
    folder: Path | None = None
    """None for a hub id that is not here yet."""
    config: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def parameters(self) -> int | None:
        return None if self.folder is None else count_parameters(self.folder)

    def size(self, parameters: int | None = None) -> str:
        """Parameters and the memory of the weights in float32, for people. parameters: where the folder is not here."""
        count = self.parameters or parameters
        memory = memory_text(count and count * BYTES["float32"])
        return f"{number_text(count)} parameters, {memory} in float32"


def find(name: str | Path, kinds: Collection[str] | None, role: str) -> Found:
    """The checkpoint that a folder or hub id stands for. ValueError, in one sentence, for one that cannot play its
    role: no such folder, no weights, or a `model_type` that is not among `kinds` (None: any)."""
    text = str(name)
    folder = Path(text)
    if not folder.is_dir():
        if folder.exists():
            raise ValueError(f"{text} is a file; the {role} is a folder with a config.json, or a hub id.")
        if not HUB_ID.fullmatch(text):
            raise ValueError(f"there is no folder {text} for the {role}; give one, or a hub id of the form owner/name.")
        here = [place for place in snapshots(text) if _weights(place)]
        if not here:
            return Found(text)
        folder = here[-1]
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} holds no config.json, so it cannot be the {role}; give the folder that has one.")
    try:
        config = json.loads(path.read_text("utf-8"))
        kind = config.get("model_type")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a valid configuration ({error}); fetch it again.") from error
    if kinds is not None and kind not in kinds:
        raise ValueError(
            f"{text} is a model of type {kind!r} and cannot be the {role}; give one of type {', '.join(sorted(kinds))}."
        )
    if not _weights(folder):
        raise ValueError(f"{folder} holds no weights ({', '.join(WEIGHT_SUFFIXES)}); fetch the checkpoint again.")
    return Found(text, folder, config)


def _weights(folder: Path) -> bool:
    return any(path.suffix in WEIGHT_SUFFIXES for path in folder.iterdir())


def fetch(found: Found, kinds: Collection[str], role: str) -> Found:
    """The same with its folder on disk, downloaded if need be: safetensors, or pickles where there are no others."""
    if found.folder is not None:
        return found
    from reverie.models.janus_checkpoint import resolve

    folder = resolve(found.name, FILES)
    if not _weights(folder):
        folder = resolve(found.name, (*FILES, *PICKLES))
    return replace(find(folder, kinds, role), name=found.name)


def load(found: Found, kind: str, device: Any = "cpu", dtype: Any = None) -> Any:
    """The network of a checkpoint on disk, frozen. kind: a class of transformers, by name. ValueError where its files
    are damaged or lack tensors."""
    import torch

    model, told = _opened(found, kind, "weights", dtype=dtype or torch.float32, output_loading_info=True)
    if told["missing_keys"]:
        lacking = sorted(told["missing_keys"])
        raise ValueError(
            f"{found.name} lacks {len(lacking)} tensors of a {kind}, such as {lacking[0]}; fetch it again."
        )
    return frozen(model.to(device))


def part(found: Found, kind: str, **settings: Any) -> Any:
    """What goes with a network: its tokenizer, image processor or processor, by the class of transformers. ValueError
    where it is not there."""
    return _opened(found, kind, WHAT[kind], **settings)


def _opened(found: Found, kind: str, what: str, **settings: Any) -> Any:
    import torch
    import transformers
    from safetensors import SafetensorError

    assert found.folder is not None
    try:
        return getattr(transformers, kind).from_pretrained(found.folder, **settings)
    except ImportError as error:
        raise ValueError(
            f"{found.name} needs a library that is not here ({_first_line(error)}): pip install 'reverie[evaluators]'."
        ) from error
    except torch.OutOfMemoryError:
        raise
    except (*DAMAGE, OSError, SafetensorError) as error:
        raise ValueError(
            f"the {what} of {found.name} cannot be read ({_first_line(error)}); fetch it again."
        ) from error


def eyes(found: Found) -> Any:
    """The image processor that computes with Pillow and numpy, so that scores do not depend on what is installed."""
    return part(found, "AutoImageProcessor", backend="pil")


def _first_line(error: Exception) -> str:
    lines: Sequence[str] = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def read_config(source: str | Path) -> Any:
    """The config of a folder or hub id; ValueError, in one sentence, where there is none."""
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ValueError(f"{source} is no model of transformers ({str(error).splitlines()[0]}).") from error


def frozen(model: Any) -> Any:
    """The model in evaluation mode, none of its weights trainable."""
    return model.eval().requires_grad_(False)
