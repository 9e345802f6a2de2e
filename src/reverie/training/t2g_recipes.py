"""Recipes of thinking before painting with diffusion models (arXiv 2601.10332): `think-sft` and `dual-grpo`.

Both leave what they learnt beside the model as adapters: `text_encoder/` and `transformer/` in their folder, which
`models/diffusion_adapters.py` and `adapters:` of a later recipe put on top of the same model. Trained without LoRA,
the whole pipeline is saved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..files import write_atomically
from ..generators.diffusion import DiffusionPainter
from ..generators.family import own_steps
from ..loading import here
from ..models.diffusion_adapters import ADAPTERS, add_adapters, check_adapters
from ..models.diffusion_checkpoint import load_pipeline
from ..models.registry import Source, fetched, resolve
from . import picture_rewards as paid
from .adapted import Adapted, save_adapter
from .adapters import Lora
from .alarms import Alarms
from .dual_grpo import DualTask, DualTree, FlowSampling, Question, Side, dual_task
from .grpo import GrpoConfig, reinforce
from .loop import LoopConfig, train
from .questions import Asks, kind_of, questions
from .recipes import section
from .rollout import Reward
from .think_sft import ThinkTask, ThinkTraining, states_similarity
from .vlm_forward import quicken_qwen
from .word_rewards import WORDS, in_words


def opened(recipe: Mapping[str, Any]) -> tuple[Source, Any]:
    """The pipeline that `model` names, on the best device in float32 (or `dtype`), with `adapters` added to it."""
    if not recipe.get("model"):
        raise ValueError("give model: a diffusion model by name, hub id or folder.")
    source = resolve(recipe["model"])
    if source.family not in (None, "diffusion"):
        raise ValueError(f"{source.name} is no diffusion model; this recipe trains Qwen-Image, FLUX.1 and SD 3.")
    folders = [Path(folder) for folder in recipe.get("adapters") or ()]
    for folder in folders:
        check_adapters(folder)
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    kind = recipe.get("dtype", "float32")
    if kind not in kinds:
        raise ValueError(f"dtype={kind!r}: must be one of {', '.join(kinds)}.")
    source = fetched(source)
    assert source.folder is not None
    pipeline = load_pipeline(source.folder, dtype=kinds[kind], device=here(None))
    for folder in (*source.adapters, *folders):
        add_adapters(pipeline, folder)
    return source, pipeline


def _export(pipeline: Any, learnt: Mapping[str, Adapted], out: Path, about: Mapping[str, Any]) -> Path:
    """The adapters, or, where all weights of a part learnt, the whole pipeline."""
    learning = {part: one for part, one in learnt.items() if one.learns}
    if all(one.lora.rank for one in learning.values()):
        folder = out / "adapters"
        for part, one in learning.items():
            save_adapter(one.network, one.lora, folder / part)
        text = json.dumps(dict(about), indent=1) + "\n"
        write_atomically(folder / ADAPTERS, lambda path: path.write_text(text, "utf-8"))
        return folder
    from .adapted import merge

    folder = out / "pipeline"
    for one in learning.values():
        merge(one.network)
    pipeline.save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    index["_reverie"] = about.get("settings") or {}
    text = json.dumps(index, indent=2) + "\n"
    write_atomically(folder / "model_index.json", lambda path: path.write_text(text, "utf-8"))
    return folder


def sft(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Keys: model, adapters, dtype, data (rewrites: a folder or file, or a list of them), wording. Sections: mix
    (ThinkTraining), lora (Lora; rank 0 trains the whole encoder), loop."""
    from ..data.rewrites import read_rewrites

    mix, lora = section(recipe, "mix", ThinkTraining), section(recipe, "lora", Lora)
    loop = section(recipe, "loop", LoopConfig)
    if not recipe.get("data"):
        raise ValueError("give data: rewrites, as `reverie data build rewrites` makes them.")
    sources = [recipe["data"]] if isinstance(recipe["data"], str) else recipe["data"]
    rewrites = [one for source in sources for one in read_rewrites(source)]
    source, pipeline = opened(recipe)
    check_writer(pipeline, source.name)
    if pipeline.device.type == "cpu":  # three plain products are faster there than the fused attention
        quicken_qwen(pipeline.text_encoder).set_attn_implementation("eager")
    painter = DiffusionPainter(pipeline, **own_steps(source.config))
    adapted = Adapted(pipeline.text_encoder.eval(), lora, frozen=True)
    task = ThinkTask(painter, adapted, wording(recipe, source), rewrites, mix, seed)
    train(task, loop, out, recipe=recipe)
    folder = _export(pipeline, {"text_encoder": adapted}, out, _about(source, recipe))
    usable(painter, adapted, [one.refined_prompt for one in rewrites if one.image is None][:64], folder)
    return out


def usable(painter: DiffusionPainter, adapted: Adapted, prompts: list[str], folder: Path) -> None:
    """Writes how far the states of prompts have moved, which the frozen transformer goes on reading."""
    if not prompts or not painter.paints or not (adapted.lora.rank or adapted._frozen):
        return
    text = json.dumps({"prompts": len(prompts), **states_similarity(painter, adapted, prompts)}, indent=1) + "\n"
    write_atomically(folder / "encoder_space.json", lambda path: path.write_text(text, "utf-8"))


def dual_grpo(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Keys: model, adapters, dtype, wording, judges (name of a reward to a judge, see judges/load.py, or to
    {judge: ..., by: rewrite}, which is asked about the rewritten prompt and not the typed one), inspector.
    Sections: data (Asks), tree (DualTree), flow (FlowSampling), thinker, painter (Side), grpo, alarms, judging (where
    the judges are, see cluster/rewards.py), loop."""
    from ..cluster.rewards import closing

    loop = section(recipe, "loop", LoopConfig)
    source, pipeline, made, rewards = dual_parts(recipe, seed)
    with closing(rewards):
        reinforce(made.task, loop, out, recipe)
    learnt = {"text_encoder": made.thinking, "transformer": made.painting}
    _export(pipeline, learnt, out, _about(source, recipe))
    return out


def dual_parts(recipe: Mapping[str, Any], seed: int) -> tuple[Source, Any, DualTask, dict[str, Reward]]:
    """(source, pipeline, task, rewards) of a recipe of `dual-grpo`, ready to roll out; whoever takes them closes the
    rewards (`cluster.rewards.closing`)."""
    tree, flow = section(recipe, "tree", DualTree), section(recipe, "flow", FlowSampling)
    thinker, painter = section(recipe, "thinker", Side), section(recipe, "painter", Side)
    grpo, alarms = section(recipe, "grpo", GrpoConfig), section(recipe, "alarms", Alarms)
    data = section(recipe, "data", Asks)
    asked = questions(data, seed)
    kind = kind_of(asked)
    _check_rewards(recipe, kind, tree, thinker, painter)
    source, pipeline = opened(recipe)
    if tree.thoughts:
        check_writer(pipeline, source.name)
    table = {one.key: one for one in asked}
    rewards = _rewards(recipe, kind, table, str(pipeline._execution_device)) if tree.images else in_words(table)
    made = dual_task(
        pipeline,
        wording(recipe, source),
        asked,
        rewards,
        tree,
        flow,
        thinker,
        painter,
        grpo,
        alarms,
        own_steps(source.config),
    )
    return source, pipeline, made, rewards


def wording(recipe: Mapping[str, Any], source: Source) -> str:
    from ..thinkers import WORDINGS

    name = recipe.get("wording") or source.thinker
    if name not in WORDINGS:
        raise ValueError(f"wording={name!r}: must be one of {', '.join(WORDINGS)}.")
    return name


def check_writer(pipeline: Any, name: str) -> None:
    if not hasattr(pipeline.text_encoder, "generate"):
        raise ValueError(f"the text encoder of {name} cannot write; set tree.thoughts: 0 and learn: painter.")


def _about(source: Source, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """For adapters.json. A base that has adapters of its own stands there as it is."""
    settings = dict(source.config.get("_reverie") or {})
    base = str(Path(source.name).resolve()) if Path(source.name).is_dir() else source.name
    before = [str(Path(folder).resolve()) for folder in recipe.get("adapters") or ()]
    return {"base": base, "before": before, "settings": settings | {"thinker": wording(recipe, source)}}


def _known(recipe: Mapping[str, Any], kind: str | None, tree: DualTree) -> list[str]:
    if not tree.images:
        return [*(WORDS if kind == "atelier" else ()), paid.READABLE]
    known = [*(recipe.get("judges") or {}), paid.READABLE]
    if kind == "atelier-edits":
        return [*known, *paid.EDITS, paid.LIKENESS]
    if kind == "atelier":
        return [*known, *paid.ATELIER, *WORDS]
    return [*known, paid.LIKENESS]


def _check_rewards(recipe: Mapping[str, Any], kind: str | None, tree: DualTree, thinker: Side, painter: Side) -> None:
    """Every reward that a learning side names is there, before anything is loaded."""
    from ..judges.load import check_named

    known = _known(recipe, kind, tree)
    for name, side, learns in (
        ("thinker", thinker, tree.learn != "painter"),
        ("painter", painter, tree.learn != "thinker"),
    ):
        if learns and not side.rewards:
            raise ValueError(f"{name}.rewards: name at least one reward and its weight; there are {', '.join(known)}.")
        if learns and (unknown := sorted(set(side.rewards) - set(known))):
            raise ValueError(f"{name}.rewards: there is no reward {unknown[0]!r}; there are {', '.join(known)}.")
    for judge, _ in _judges(recipe).values():
        check_named(resolve(judge, "judge"))


def _judges(recipe: Mapping[str, Any]) -> dict[str, tuple[str, bool]]:
    """Of each reward: the judge, and whether it is asked about the rewritten prompt."""
    found = {}
    for name, what in (recipe.get("judges") or {}).items():
        full = what if isinstance(what, dict) else {"judge": what}
        if set(full) - {"judge", "by"} or "judge" not in full or full.get("by", "prompt") not in ("prompt", "rewrite"):
            raise ValueError(f"judges.{name}: give a judge, or {{judge: ..., by: prompt or rewrite}}.")
        found[name] = (str(full["judge"]), full.get("by") == "rewrite")
    return found


def _judged(recipe: Mapping[str, Any], table: Mapping[str, Question], device: str) -> dict[str, Reward]:
    """What the judges of a recipe pay, in actors of their own where it says so."""
    from ..cluster.rewards import Elsewhere, judging_of
    from ..judges.load import judge_by_name

    def opens(name: str, device: str | None = None) -> Reward:
        judge, rewritten = judges[name]  # an actor takes the device that it is given
        return paid.judge_reward(judge_by_name(judge, device or here(None)), table, rewritten)

    judging, judges = judging_of(recipe), _judges(recipe)
    if judging is None:
        return {name: opens(name, device) for name in judges}
    return {name: Elsewhere(partial(opens, name), judging) for name in judges}


def _rewards(
    recipe: Mapping[str, Any], kind: str | None, table: Mapping[str, Question], device: str
) -> dict[str, Reward]:
    rewards = _judged(recipe, table, device)
    rewards[paid.READABLE] = paid.readable
    if kind is not None:
        from ..atelier.inspector import Inspector
        from .recipes import shipped

        inspector = Inspector.load(
            recipe.get("inspector") or shipped("atelier-inspector"), device, fast=device != "cpu"
        )
        edits = kind == "atelier-edits"
        rewards |= {} if edits else in_words(table)
        rewards |= (paid.atelier_edit_rewards if edits else paid.atelier_rewards)(inspector, table)
    if kind != "atelier":
        rewards[paid.LIKENESS] = paid.similarity(table)
    return rewards
