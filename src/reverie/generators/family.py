"""The generator of a loaded checkpoint of any family, with what the checkpoint says about its own painting.

A checkpoint names its guidance weight, temperature and so on in config.json, as `"reverie": {"guidance": ...}`; a
pipeline of diffusers in model_index.json, as `"_reverie": {"steps": ...}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..canvas import Generator
    from ..models.registry import Source
    from ..reason import Plan

OWN_SETTINGS = {
    "janus": ("guidance", "temperature"),
    "llamagen": ("guidance", "temperature", "top_k", "top_p"),
    "showo": ("guidance", "temperature", "steps", "sees", "blank_sees"),
}
"""What a checkpoint of a family may say about its own painting."""
OWN_STEPS = ("guidance", "steps", "negative", "height", "width", "limit", "area", "paints")
"""What a pipeline may say."""


def generator_of(source: Source, model: Any, tokenizer: Any, plan: Plan, rows: int) -> Generator:
    """The model as one that paints, at the temperature of the plan. rows: of every matrix product of a Janus.
    ValueError for a temperature where there is none."""
    if source.family in ("diffusion", "thinkdiff"):
        if plan.temperature is not None:
            raise ValueError(f"{source.name} paints by diffusion and has no temperature; leave it out.")
        return _of_pipeline(source, model)
    said = model.config.raw.get("reverie", {})
    own = {name: said[name] for name in OWN_SETTINGS.get(source.family or "", ()) if name in said}
    if plan.temperature is not None:
        own["temperature"] = plan.temperature
    if source.family == "llamagen":
        from .llamagen import LlamagenPainter

        return LlamagenPainter(model, tokenizer, **own)
    if source.family == "showo":
        from .showo import ShowoPainter

        return ShowoPainter(model, tokenizer, official=plan.rules == "official", **own)
    from .janus import JanusPainter

    words = tokenizer.as_published_for_painting() if plan.official else tokenizer
    return JanusPainter(model, words, rows=rows, **own)


def _of_pipeline(source: Source, model: Any) -> Generator:
    if source.family == "diffusion":
        from .diffusion import DiffusionPainter

        return DiffusionPainter(model, **own_steps(source.config))
    from .thinkdiff import ThinkDiffPainter

    return ThinkDiffPainter(model.pipeline, model.condition, model.need_t5, **own_steps(model.index))


def own_steps(index: Mapping[str, Any]) -> dict[str, Any]:
    """What a model_index.json says about painting."""
    own = index.get("_reverie", {})
    return {name: own[name] for name in OWN_STEPS if name in own}
