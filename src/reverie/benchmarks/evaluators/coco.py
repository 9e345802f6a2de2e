"""The 80 classes of COCO in the names that GenEval's prompts use, whatever a detector calls them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from reverie.models.pretrained import Found


@cache
def _coco() -> tuple[tuple[str, ...], dict[str, str]]:
    import yaml

    table = yaml.safe_load(Path(__file__).with_name("coco.yaml").read_text("utf-8"))
    return tuple(table["classes"]), table["aliases"]


def coco_classes() -> tuple[str, ...]:
    """The 80 classes in the order of COCO, in GenEval's names."""
    return _coco()[0]


def coco_labels(names: Mapping[int, str]) -> dict[int, str]:
    """Class numbers of a detector to GenEval's names. A model that only numbers its 80 classes has them in COCO's
    order; classes beyond COCO's 80 are left out. ValueError where one of the 80 is missing."""
    classes, aliases = _coco()
    if len(names) == len(classes) and all(name.upper() == f"LABEL_{place}" for place, name in names.items()):
        return dict(enumerate(classes))
    found = {place: aliases.get(name.lower(), name.lower()) for place, name in names.items()}
    found = {place: name for place, name in found.items() if name in classes}
    if missing := [name for name in classes if name not in found.values()]:
        raise ValueError(f"it does not know {len(missing)} of COCO's 80 classes, such as {missing[0]}")
    return found


def check_classes(found: Found) -> dict[int, str]:
    """What `coco_labels` makes of a checkpoint's classes, before its weights are loaded."""
    names = found.config.get("id2label") or {}
    count = len(names) or found.config.get("num_labels") or 2  # transformers does not write them where they are 2
    listed = {int(key): str(name) for key, name in names.items()} or {i: f"LABEL_{i}" for i in range(count)}
    try:
        return coco_labels(listed)
    except ValueError as error:
        raise ValueError(f"{found.name} cannot be the detector: {error}.") from error
