"""What can be refused before anything is loaded: each check raises ValueError, in one sentence that says what to do.

They read names, numbers and configurations, never weights, so that the command line and a server answer at once.
"""

from __future__ import annotations

import math
import re
import secrets
from typing import TYPE_CHECKING, Any

from reverie.models.diffusion_checkpoint import EDITORS
from reverie.models.prompt_length import check_length, image_length
from reverie.models.registry import Source, check_prompt
from reverie.schedule import bands, blocks, explicit

if TYPE_CHECKING:
    from reverie.inputs import Inputs
    from reverie.reason import Plan

LARGEST_SEED = 2**63 - 1
MOST_IMAGES = 4096
SILENT = {
    "llamagen": "only paints and cannot read or write",
    "showo": "paints and answers questions about one picture, but holds no conversation",
    "thinkdiff": "thinks about a context and paints, but holds no conversation",
}
"""Families that do not write, and what they do instead."""
TAKES_CONTEXT = ("thinkdiff",)
"""Families whose generators say `takes_context` (see canvas.Generator)."""
EYES = ("janus", "showo")
"""Families of painters that look at pictures with eyes of their own."""
DTYPES = ("float32", "bfloat16", "float16")


def check_writes(source: Source) -> None:
    """ValueError for a model that is known not to write, and so cannot think."""
    if source.family in SILENT:
        raise ValueError(
            f"{source.name} {SILENT[source.family]}; take a Janus, such as atelier-janus, or name one that thinks for "
            f"it (--think before --thinker atelier-janus, --think during --eyes atelier-janus)."
        )


def check_thinks(source: Source, plan: Plan) -> None:
    """ValueError for a plan that thinks on a model that does not write, unless another thinks for it."""
    from reverie.eyes import check_thinker

    check_thinker(plan.thinker)
    other = plan.thinker if not plan.interleaved else plan.eyes
    if plan.think != "never" and other is None:
        check_writes(source)


def check_judges(source: Source) -> None:
    """ValueError for a model that is known not to be able to judge pictures, its own included."""
    if source.family in (*SILENT, "diffusion"):
        raise ValueError(f"{source.name} paints and cannot judge pictures; name another judge.")


def usual_judge(source: Source) -> str | None:
    """Who judges where nobody is named: None for the painter itself, or whom its checkpoint names. ValueError if there
    is nobody."""
    if source.family in (*SILENT, "diffusion") and source.judged_by:
        return source.judged_by
    check_judges(source)
    return None


def check_looks(source: Source) -> None:
    """ValueError for a model that is known not to look at pictures."""
    if source.family in ("llamagen", "thinkdiff"):
        check_writes(source)
    if source.family == "diffusion":
        raise ValueError(f"{source.name} paints and cannot look at pictures; take a Janus, such as atelier-janus.")


def check_canvas(source: Source, plan: Plan) -> None:
    """ValueError for thoughts about regions on a model that cannot look at them, and for more regions than its canvas
    has rows, as far as its configuration says so."""
    if plan.interleaved and source.family in (*SILENT, "diffusion") and plan.eyes is None:
        raise ValueError(
            f"{source.name} cannot look at what it paints and think about it; name a model that does so with eyes "
            f"(--eyes atelier-janus), or think before painting."
        )
    if source.family == "janus" and source.config:
        steps = image_length(source.config)
        if plan.official:
            blocks(plan.regions or 1, steps)
        elif plan.schedule != "adaptive":
            bands(explicit(plan.schedule) or (1,) * (plan.regions or 1), steps, math.isqrt(steps))


def edits(source: Source) -> bool:
    """Whether a model edits pictures."""
    return source.config.get("_class_name") in EDITORS


def paints(source: Source) -> bool:
    """Whether a model paints from words alone; an editor does so only where its index says so."""
    return not edits(source) or bool((source.config.get("_reverie") or {}).get("paints"))


def in_words(source: Source, plan: Plan, inputs: Inputs) -> bool:
    """Whether given pictures reach this painter through words (relay.py): it does not take them, or eyes are named."""
    if not inputs or plan.eyes is not None:
        return bool(inputs)
    return not edits(source) if inputs.picture is not None else source.family not in TAKES_CONTEXT


def check_inputs(source: Source, plan: Plan, inputs: Inputs) -> None:
    """ValueError for pictures that this painter can do nothing with, or lacks."""
    from reverie.eyes import check_eyes

    if not paints(source) and (inputs.picture is None or inputs.context):
        raise ValueError(f"{source.name} edits pictures and paints none from words alone: reverie edit PICTURE ...")
    if not paints(source) and plan.eyes is not None:
        raise ValueError(f"{source.name} looks at the picture itself; leave eyes={plan.eyes!r} out.")
    if plan.eyes is not None and not inputs and not plan.interleaved:
        raise ValueError(f"eyes={plan.eyes!r} have nothing to look at; give a picture, or leave eyes out.")
    check_eyes(plan.eyes)
    if in_words(source, plan, inputs) and plan.eyes is None and source.family not in (None, *EYES):
        raise ValueError(
            f"{source.name} paints from words alone; name a model that looks at pictures for it with eyes "
            f"(--eyes atelier-janus), or take a model that {'edits' if inputs.picture else 'reads'} pictures."
        )


def check_place(device: str | None, dtype: Any = None) -> None:
    """ValueError for a device or a type of weights that cannot be meant; whether the device is here is asked later."""
    if device is not None and not re.fullmatch(r"(cpu|cuda|mps|xpu)(:\d+)?", device):
        raise ValueError(f"device={device!r}: must be one of cpu, cuda, cuda:1 and so on, mps, xpu.")
    if isinstance(dtype, str) and dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: must be one of {', '.join(DTYPES)}.")


def may_be_silent(source: Source, context: Any) -> bool:
    """Whether pictures alone are enough: for ThinkDiff, which paints what they have in common, or what they show."""
    return source.family == "thinkdiff" and bool(context)


def check_request(source: Source, prompt: str, seed: int | None, n: int, silent: bool = False) -> list[int]:
    """The seeds of a request, once everything is checked that needs no weights. silent: see `may_be_silent`."""
    check_prompt(prompt, silent=silent)
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= MOST_IMAGES:
        raise ValueError(f"n={n!r}: the number of images must lie between 1 and {MOST_IMAGES}.")
    if seed is None:
        seed = secrets.randbits(31)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED - n:
        raise ValueError(f"seed={seed!r}: must be a whole number between 0 and 2**63 - 1.")
    check_length(source, prompt)
    return list(range(seed, seed + n))
