"""The recipe of a judge that learns claim by claim (judge_claims.py)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..judges.vlm import Wording
from .adapters import Lora, add, merged
from .card import note, write_card
from .judge_claims import ClaimTask, ClaimTraining
from .loop import LoopConfig, train
from .recipes import section

if TYPE_CHECKING:
    from .qwen_judge import QwenStudent


def judge_claims(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Keys: model (a Qwen2-VL as the Atelier's), data (folders of looks; none if all pictures are drawn), wording (in
    which it is asked), moves, lenient and strict (how it is to be asked, judges/manner.py), blend (which share of what
    was learnt is kept, see `blended`; 1 if left out), export, base (the judge is then exported as what it differs by
    from that model, see models/low_rank.py) and rank (of the difference; 0 for all of it).
    Sections: claims (ClaimTraining), lora, loop."""
    from ..data.looks import Looks
    from ..judges.manner import Manner
    from ..models.registry import fetched, resolve
    from ..vlms.transformers import TransformersVLM
    from .qwen_judge import QwenStudent, save_judge

    config, loop = section(recipe, "claims", ClaimTraining), section(recipe, "loop", LoopConfig)
    lora, wording = section(recipe, "lora", Lora), recipe.get("wording") or "atelier"
    asked = {name: recipe[name] for name in ("moves", "lenient", "strict") if recipe.get(name)}
    Manner.of(asked, "recipe")
    share = float(recipe.get("blend", 1.0))
    if not 0 < share <= 1:
        raise ValueError(f"blend={share}: above 0 and at most 1.")
    found = recipe.get("data") or {}
    painted = [Looks(folder) for folder in ([found] if isinstance(found, str) else found)]
    source = fetched(resolve(recipe["model"], "judge"))
    if source.family != "chat" or source.folder is None:
        raise ValueError(f"{source.name} is no Qwen2-VL; a judge that learns claim by claim is one.")
    student = QwenStudent(TransformersVLM.load(source.folder, dtype=torch.float32))
    before = [weight.detach().clone() for weight in student.model.parameters()] if share < 1 else []
    task = ClaimTask(student, Wording.of(wording), config, seed, painted)
    learner = add(student.model, lora) if lora.rank else None
    if learner is not None:
        task.model["judge"] = learner
    train(task, loop, out, recipe=dict(recipe))
    if learner is not None:
        merged(learner)
    if share < 1:
        blended(student.model, before, share)
    folder = Path(recipe.get("export") or out / "checkpoint")
    taught = config.reasons > 0 and any(look.reason for looks in painted for look in looks.rows)
    about: dict[str, Any] = {"judge": wording, "reasons": taught, **asked}
    if painted:
        about["clear_from"] = min(one.clear_from for one in painted)
    if recipe.get("base"):
        as_adapter(student, str(recipe["base"]), int(recipe.get("rank") or 0), folder, about)
    else:
        save_judge(student, folder, wording)
        note(folder, about)
    told = (f"{one.folder} ({len(one)} images, {one.left_out} more kept back for benchmarks)" for one in painted)
    learned = ", ".join(told) or "drawn pictures"
    write_card(out, folder, f"Judge, begun with {source.name}", [f"Learned from claims about {learned}."])
    return out


@torch.no_grad()
def blended(model: torch.nn.Module, before: Sequence[torch.Tensor], share: float) -> None:
    """Weights between those that training began with and those that it ended with: what was learnt from few pictures is
    kept without all that is forgotten (WiSE-FT, arXiv 2109.01903)."""
    for now, old in zip(model.parameters(), before, strict=True):
        now.lerp_(old.to(now), 1 - share)


def as_adapter(student: QwenStudent, base: str, rank: int, folder: Path, about: Mapping[str, Any]) -> None:
    """Writes a judge as what it differs by from the chat model `base`: a folder (a relative one counts from `folder`),
    name or hub id."""
    from ..models.low_rank import difference, save_adapter
    from ..models.registry import fetched, resolve
    from ..vlms.transformers import TransformersVLM

    folder.mkdir(parents=True, exist_ok=True)  # a path that goes up from it is none before it is there
    beside = folder / base
    whole = fetched(resolve(beside if beside.is_dir() else base, "judge"))
    if whole.family != "chat" or whole.folder is None:
        raise ValueError(f"base={base!r} is no chat model, so a judge cannot be told as a change of it.")
    first = dict(TransformersVLM.load(whole.folder, dtype=torch.float32).model.named_parameters())
    parts = difference(dict(student.model.named_parameters()), first, rank)
    save_adapter(folder, base, {**whole.config, "reverie": dict(about)}, 1.0, parts)
