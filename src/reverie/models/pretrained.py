"""What loading from the transformers layout has in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any


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
