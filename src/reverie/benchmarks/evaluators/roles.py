"""Which models look at the images of a benchmark, and in which role; imports nothing heavy and loads nothing.

`cast` says who plays each role and refuses whoever cannot. Defaults are the official models where transformers has
their weights, and the nearest to them where it has not: `Part.official` tells which, because a score by another model
is not comparable with published ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reverie.benchmarks.compbench import RULES
from reverie.models.pretrained import Found, find
from reverie.reason import did_you_mean

CLOSED = (
    "conditional_detr", "d_fine", "dab-detr", "deformable_detr", "detr", "lw_detr", "rf_detr", "rt_detr", "rt_detr_v2",
    "yolos",
)  # fmt: skip
"""Types of detectors that know the classes of their training."""
OPEN = ("owlv2", "owlvit")
"""Types of detectors that look for what they are told."""
DEPTH = ("depth_anything", "dpt", "glpn", "zoedepth")


@dataclass(frozen=True)
class Role:
    """What has to be looked at, who did it officially, and who does it if nobody else is named."""

    what: str
    official: str
    default: str
    exact: bool
    """Whether the default has the official weights."""
    licence: str
    parameters: int | None
    """Of the default."""
    kinds: tuple[str, ...]
    """Types of models, by config.json, that can do it. Empty for the tagger, which is no such model."""


INSTANCES = Role(
    "finds things and their masks", "MMDetection's Mask2Former Swin-S, COCO instances, 20220504",
    "facebook/mask2former-swin-small-coco-instance", False, "see its card", 68_741_083, ("mask2former",),
)  # fmt: skip
COLOURS = Role(
    "reads the colours of things", "CLIP ViT-L/14 of OpenAI", "openai/clip-vit-large-patch14", True, "MIT",
    427_616_513, ("clip",),
)  # fmt: skip
TAGGER = Role(
    "finds nouns and noun phrases in prompts", "spaCy's en_core_web_sm", "en_core_web_sm", True, "MIT", None, (),
)  # fmt: skip
VQA = Role(
    "answers whether a picture shows a phrase", "BLIP VQA base, capfilt-large", "Salesforce/blip-vqa-base", True,
    "BSD-3-Clause", 361_230_140, ("blip",),
)  # fmt: skip
BOXES = Role(
    "finds the things that a prompt names", "UniDet, 722 classes", "google/owlv2-base-patch16-ensemble", False,
    "Apache-2.0", 153_971_464, CLOSED + OPEN,
)  # fmt: skip
DEPTHS = Role(
    "says what is near and what is far", "DPT-hybrid MiDaS", "Intel/dpt-hybrid-midas", True, "Apache-2.0", 123_000_000,
    DEPTH,
)  # fmt: skip
COSINES = Role(
    "compares pictures with prompts", "CLIP ViT-B/32 of OpenAI", "openai/clip-vit-base-patch32", True, "MIT",
    151_277_313, ("clip",),
)  # fmt: skip
GENEVAL = {"detector": INSTANCES, "clip": COLOURS}
COMPBENCH = {
    "blip_vqa": {"tagger": TAGGER, "vqa": VQA},
    "unidet_2d": {"tagger": TAGGER, "detector": BOXES},
    "unidet_3d": {"tagger": TAGGER, "detector": BOXES, "depth": DEPTHS},
    "unidet_count": {"tagger": TAGGER, "detector": BOXES},
    "clip": {"clip": COSINES},
    "three_in_one": {"tagger": TAGGER, "vqa": VQA, "detector": BOXES, "clip": COSINES},
}
"""By the rule of a category."""


@dataclass(frozen=True)
class Part:
    """Who plays a role."""

    role: str
    about: Role
    name: str
    found: Found | None
    """None for the tagger."""

    @property
    def official(self) -> bool:
        """Whether it has the official weights, as far as its name tells: a folder may hold anything."""
        return self.about.exact and self.name == self.about.default

    @property
    def size(self) -> str:
        if self.found is None:
            return "small"
        return self.found.size(self.about.parameters if self.name == self.about.default else None)

    @property
    def note(self) -> str | None:
        """What a report has to say about it; None for the official model."""
        if self.official:
            return None
        return f"{self.role}: {self.name} in place of {self.about.official}, so the score is not comparable"


def category_of(name: str) -> str | None:
    """The category of T2I-CompBench that a name such as t2i-compbench-color stands for; None for other names."""
    text = name.removeprefix("t2i-")
    if not text.startswith("compbench"):
        return None
    category = text.removeprefix("compbench").strip("-/ +")
    if category not in RULES:
        raise ValueError(
            f"{name} needs a category of T2I-CompBench{did_you_mean(category, RULES)}: give one of "
            f"{', '.join(f't2i-compbench-{one}' for one in RULES)}."
        )
    return category


def roles(name: str) -> dict[str, Role]:
    """The roles of a benchmark that models with eyes decide. ValueError for others."""
    if name in ("geneval", "geneval-long"):
        return GENEVAL
    category = category_of(name)
    if category is None:
        raise ValueError(
            f"{name} is not scored by detectors, BLIP or CLIP; those that are: geneval, geneval-long, "
            f"{', '.join(f't2i-compbench-{one}' for one in RULES)}."
        )
    return COMPBENCH[RULES[category]]


def cast(name: str, choices: Mapping[str, str | Path] | None = None) -> list[Part]:
    """Who plays each role of a benchmark: those chosen, or else the defaults. ValueError, before anything is loaded,
    for a role that there is not and for a model that cannot play it."""
    wanted = roles(name)
    chosen = {role: str(who) for role, who in (choices or {}).items()}
    for role in chosen:
        if role not in wanted:
            raise ValueError(
                f"{name} has no role {role!r}{did_you_mean(role, wanted)}; its roles are {', '.join(wanted)}."
            )
    return [_part(role, about, chosen.get(role, about.default)) for role, about in wanted.items()]


def cast_all(name: str, choices: Mapping[str, str | Path] | None = None) -> list[Part]:
    """`cast` for a benchmark by the name of the table, which may be several categories: each model once."""
    from reverie.benchmarks.registry import PUBLIC, find

    target, *more = PUBLIC.get(find(name), ("",))
    names = [f"t2i-compbench-{one}" for one in more[1]] if target == "detected:of_compbench" else [name]
    chosen = dict(choices or {})
    wanted = {one: roles(one) for one in names}
    for role in chosen:
        if not any(role in known for known in wanted.values()):
            known = sorted({role for some in wanted.values() for role in some})
            raise ValueError(
                f"{name} has no role {role!r}{did_you_mean(role, known)}; its roles are {', '.join(known)}."
            )
    found: dict[tuple[str, str], Part] = {}
    for one in names:
        for part in cast(one, {role: who for role, who in chosen.items() if role in wanted[one]}):
            found.setdefault((part.about.what, part.name), part)
    return list(found.values())


def _part(role: str, about: Role, who: str) -> Part:
    if role == "tagger":
        from reverie.benchmarks.evaluators.tagger import check

        check(who)
        return Part(role, about, who, None)
    found = find(who, about.kinds, role)
    if found.config and about is INSTANCES:
        from reverie.benchmarks.evaluators.coco import check_classes

        check_classes(found)
    return Part(role, about, who, found)


def choices_of(texts: list[str] | None) -> dict[str, str]:
    """What `--evaluator ROLE=NAME` says, given as often as one likes. ValueError for anything else."""
    found: dict[str, str] = {}
    for text in texts or ():
        role, _, who = text.partition("=")
        if not role or not who:
            raise ValueError(f"--evaluator {text}: must be ROLE=NAME, such as detector=path/to/mask2former.")
        if role in found:
            raise ValueError(f"--evaluator names the {role} twice.")
        found[role] = who
    return found
