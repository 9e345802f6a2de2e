"""What a plan can say, for pages that build their forms from it: fields, allowed values, presets, models, judges."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, ClassVar

from reverie.reason import PRESETS, WORDS, Plan
from reverie.studio.request import KINDS, LONGEST_PROMPT, House


def plan_form(house: House) -> dict[str, Any]:
    """One object: `fields` in the order of the plan, each with type, default, help and, if it is so, its values."""
    helps, limits = _helps(), house.limits
    described = []
    for field in fields(Plan):
        kind = str(field.type).split(" ")[0]
        about = {"name": field.name, "type": kind, "default": field.default, "help": helps.get(field.name) or ""}
        if field.name in WORDS:
            about["values"] = list(WORDS[field.name])
        if field.name in ("judge", "eyes", "thinker"):
            about["values"] = house.judges()
        described.append(about)
    return {
        "kinds": list(KINDS),
        "fields": described,
        "presets": PRESETS,
        "models": list(house.models),
        "limits": {"n": limits.images, "pictures": limits.rows, "prompt": LONGEST_PROMPT} | _uploads(house),
    }


def _helps() -> dict[str, str]:
    """What the command line says about each field."""
    from reverie.cli import Parser, plan_arguments

    class Listener(Parser):
        said: ClassVar[dict[str, str]] = {}

        def add_argument(self, *flags: Any, **about: Any) -> Any:
            self.said[flags[0].strip("-").replace("-", "_")] = about.get("help", "")

    plan_arguments(Listener())
    return Listener.said


def _uploads(house: House) -> dict[str, int]:
    return {"upload_bytes": house.limits.upload_bytes, "upload_pixels": house.limits.upload_pixels}
