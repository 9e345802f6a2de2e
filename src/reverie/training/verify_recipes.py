"""The recipes of "verify and reinforce" (arXiv 2501.13926): judges, self-correction, DPO, guided and in rounds.

Each function takes a checked recipe and its folder and returns the folder with the result.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..data.pairs import read_pairs
from ..files import write_atomically
from ..judges.vlm import Wording
from .adapters import Lora, add, merged
from .card import note, write_card
from .code_scorers import CodePainter, code_painter
from .dpo import DpoConfig, DpoTask, Pair, Scorer, adapters_off, reference_table
from .judge import JanusStudent, JudgeTask, JudgeTraining, LlavaStudent
from .loop import LoopConfig, train
from .online_pairs import OnlineConfig, OnlinePairs
from .recipes import section

if TYPE_CHECKING:
    from ..judges import Judge
    from ..models.registry import Source
    from ..painter import Painter

REFERENCES = ("copy", "table", "adapters")


def judge(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Keys: model (Janus, LLaVA-OneVision or a Qwen2-VL as the Atelier's: name, hub id, folder), data (a folder that
    `data build` filled, or folders with the share of each), wording (in which it will be asked; as in the data if left
    out), export. Sections: judge (JudgeTraining), lora, loop."""
    from ..models.registry import fetched, resolve

    config, loop = section(recipe, "judge", JudgeTraining), section(recipe, "loop", LoopConfig)
    lora, sources = section(recipe, "lora", Lora), data_sources(recipe.get("data"))
    source = fetched(resolve(recipe["model"], "judge"))
    student, save = _student(source, config.vision)
    wording = wording_of(recipe, sources)
    task = JudgeTask(student, sources, config, seed)
    learner = add(student.model, lora) if lora.rank else None
    task.model = learner or student.model
    train(task, loop, out, recipe=dict(recipe))
    if learner is not None:
        merged(learner)
    folder = Path(recipe.get("export") or out / "checkpoint")
    save(folder, wording)
    note_clear_from(folder, sources)
    write_card(out, folder, f"Judge, begun with {source.name}", [f"Learned from {', '.join(sources)}."])
    return out


def note_clear_from(folder: Path, sources: Mapping[str, float]) -> None:
    """Says in a judge's config.json how much of a picture has to be painted before it ever calls it clear."""
    abouts = (Path(source) / "data.json" for source in sources)
    kinds = [json.loads(about.read_text("utf-8")) for about in abouts if about.is_file()]
    known = [about["unclear_before"] for about in kinds if about["kind"] == "potential"]
    if known:
        note(folder, {"clear_from": clear_from(known)})


def clear_from(unclear_before: Sequence[float]) -> float:
    """How much of a picture has to be painted before PARM asks a judge about it, from where its labels begin to leave
    it open: 4/5 of that, since judges are a little ahead of their labels, and look 8 of 18 is where the paper's first
    say yes."""
    return round(0.8 * min(unclear_before), 4)


def data_sources(data: Any) -> dict[str, float]:
    """`data` of a recipe as folders and shares. ValueError where there is none."""
    if isinstance(data, str) and data:
        return {data: 1.0}
    if isinstance(data, Mapping) and data:
        return {str(folder): float(share) for folder, share in data.items()}
    raise ValueError("give `data`: a folder that `reverie data build` filled, or folders with the share of each.")


def wording_of(recipe: Mapping[str, Any], sources: Mapping[str, float]) -> Any:
    """How the trained judge is to be asked: what the recipe names, or the words that its data were built with."""
    if recipe.get("wording"):
        Wording.of(recipe["wording"])
        return recipe["wording"]
    for folder in sources:
        about = Path(folder) / "data.json"
        if about.is_file():
            return json.loads(about.read_text("utf-8"))["wording"]
    raise ValueError("the data do not say in which words the judge is asked; give `wording`.")


def _student(source: Source, vision: bool) -> tuple[Any, Any]:
    """The model that learns, and what writes it to a folder with its wording."""
    assert source.folder is not None
    if source.family == "llava":
        return _llava_student(source, vision)
    if source.family == "chat":
        return _qwen_student(source, vision)
    if source.family != "janus":
        raise ValueError(f"{source.name} cannot be trained as a judge; give a Janus, LLaVA-OneVision or Qwen2-VL.")
    from ..models.janus_checkpoint import load_janus, save_janus

    model, words = load_janus(source.folder, dtype=torch.float32)

    def save(folder: Path, wording: Any) -> None:
        model.config.raw.setdefault("reverie", {})["judge"] = wording
        save_janus(model, words, folder)

    return JanusStudent(model.train(), words, vision), save


def _qwen_student(source: Source, vision: bool) -> tuple[Any, Any]:
    from ..vlms.transformers import TransformersVLM
    from .qwen_judge import QwenStudent, save_judge

    assert source.folder is not None
    student = QwenStudent(TransformersVLM.load(source.folder, dtype=torch.float32), vision)
    return student, lambda folder, wording: save_judge(student, folder, wording)


def _llava_student(source: Source, vision: bool) -> tuple[Any, Any]:
    from ..models.llava_checkpoint import load_llava
    from ..vlms.llava import LlavaEyes

    assert source.folder is not None
    llava = load_llava(source.folder, dtype=torch.float32)
    view = (llava.raw.get("reverie") or {}).get("view", "pad")

    def save(folder: Path, wording: Any) -> None:
        llava.model.save_pretrained(folder)
        llava.tokenizer.save_pretrained(folder)
        path = folder / "config.json"
        raw = json.loads(path.read_text("utf-8")) | {"reverie": {"judge": wording, "view": view}}
        text = json.dumps(raw, indent=2) + "\n"
        write_atomically(path, lambda part: part.write_text(text, "utf-8"))

    return LlavaStudent(LlavaEyes(llava, view=view), vision), save


# --- DPO


def dpo(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Keys: model (Show-o, LlamaGen or Janus), data (of `data build preference`), reference (copy, table or adapters),
    judge (for guidance), export. Sections: dpo (DpoConfig), online (OnlineConfig), lora, loop."""
    from ..painter import load

    config = replace(section(recipe, "dpo", DpoConfig), seed=seed)
    guided, lora = section(recipe, "online", OnlineConfig), section(recipe, "lora", Lora)
    loop, kind = section(recipe, "loop", LoopConfig), _reference(recipe, lora, config)
    pairs = read_pairs(recipe.get("data") or "", "preference")
    painter = load(recipe["model"], dtype=torch.float32)
    learner = code_painter(painter)
    config = replace(config, masked=learner.masked)
    stored = [Pair(*row) for row in zip(pairs.prompts, pairs.better, pairs.worse, strict=True)]
    model = add(learner.model, lora) if lora.rank else learner.model
    score = learner.scorer()
    reference = _scorer(kind, learner, model, score)
    online = None
    if config.online:
        judge = open_judge(recipe.get("judge"), painter)
        online = OnlinePairs(
            model, score, reference, lambda: painter.generator(_plan()), judge, pairs.prompts, guided, config
        )
    task = DpoTask(model, score, stored, reference, config, online)
    if kind == "table":
        task.reference = reference_table(task, out / "reference.safetensors")
    train(task, loop, out, recipe=dict(recipe))
    if lora.rank:
        merged(model)
    folder = Path(recipe.get("export") or out / "checkpoint")
    save_painter(painter, folder)
    write_card(out, folder, f"{painter.name} after DPO", [f"{len(stored)} pairs of {recipe['data']}."])
    return out


def _plan() -> Any:
    from ..reason import Plan

    return Plan()


def _reference(recipe: Mapping[str, Any], lora: Lora, config: DpoConfig) -> str:
    kind = recipe.get("reference") or ("adapters" if lora.rank else "copy")
    if kind not in REFERENCES:
        raise ValueError(f"reference={kind!r}: must be one of {', '.join(REFERENCES)}.")
    if kind == "adapters" and not lora.rank:
        raise ValueError("reference=adapters: there are none to switch off; give lora a rank.")
    if config.online and not recipe.get("judge"):
        raise ValueError("dpo.online asks for guidance: give `judge`, a name, hub id or folder.")
    if kind == "table" and config.online:
        raise ValueError("reference=table knows stored pairs only; with dpo.online take copy, or adapters with lora.")
    return kind


def _scorer(kind: str, learner: CodePainter, model: Any, score: Scorer) -> Scorer:
    return adapters_off(model, score) if kind == "adapters" else learner.frozen() if kind == "copy" else score


def open_judge(name: str | None, painter: Painter) -> Judge:
    """A judge by name; ValueError where none is named."""
    from ..judges.load import judge_by_name

    if not name:
        raise ValueError("give `judge`, the reward model that guides: a name, hub id or folder.")
    return judge_by_name(name, str(painter.model.device))


def save_painter(painter: Painter, folder: Path) -> None:
    """The painter's network and tokenizer in our layout."""
    from ..models.janus_checkpoint import save_janus
    from ..models.llamagen_checkpoint import save_llamagen
    from ..models.showo_checkpoint import save_showo

    save: dict[str, Any] = {"showo": save_showo, "llamagen": save_llamagen, "janus": save_janus}
    save[str(painter.source.family)](painter.model, painter.tokenizer, folder)


def self_correction(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """A painter learns to correct what it sees. Keys: model (Show-o or Janus), data (of `data build correction`),
    wording (in which it is told what went wrong; as its checkpoint says if left out), export. Sections: correction
    (CorrectionConfig), lora, loop."""
    from ..painter import load
    from .self_correction import CorrectionConfig, CorrectionTask, corrections, corrector

    config = replace(section(recipe, "correction", CorrectionConfig), seed=seed)
    lora, loop = section(recipe, "lora", Lora), section(recipe, "loop", LoopConfig)
    found = recipe.get("wording") or None
    if found:
        Wording.of(found)
    pairs = read_pairs(recipe.get("data") or "", "correction")
    painter = load(recipe["model"], dtype=torch.float32)
    wording = found or painter.source.judge
    learner = code_painter(painter)
    score = corrector(learner)
    model = add(learner.model, lora) if lora.rank else learner.model
    task = CorrectionTask(model, score, corrections(pairs, Wording.of(wording).see), learner.masked, config)
    train(task, loop, out, recipe=dict(recipe))
    if lora.rank:
        merged(model)
    own = painter.model.config.own if learner.family == "showo" else painter.model.config.raw.setdefault("reverie", {})
    own.update(sees=True, judge=wording)
    folder = Path(recipe.get("export") or out / "checkpoint")
    save_painter(painter, folder)
    about = [f"{len(task.examples)} corrections of {recipe['data']}."]
    write_card(out, folder, f"{painter.name}, which corrects itself", about)
    return out


@dataclass
class Rounds:
    """How often a painter paints, is judged, and learns from the pairs. per_prompt: images of each prompt a round;
    each: pairs of a prompt; batch: images painted at a time."""

    rounds: int = 2
    per_prompt: int = 20
    each: int = 1
    pick: str = "random"
    batch: int = 64
    dtype: str | None = None
    """In which images are painted; as training if left out."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.per_prompt < 2:
            raise ValueError(f"rounds={self.rounds}: at least 1; per_prompt={self.per_prompt}: at least 2.")


def dpo_iterative(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Round after round: paint, judge, make pairs, learn; each begins with the last one's weights, which are its
    reference, too. Keys: model, prompts (as for `data build`), exclude, judge, reference, export. Sections: rounds,
    dpo, online, lora, loop (of each round)."""
    import shutil

    rounds = section(recipe, "rounds", Rounds)
    model = recipe["model"]
    for number in range(1, rounds.rounds + 1):
        here = out / f"round-{number}"
        if not (here / "checkpoint" / "config.json").is_file():
            _paint_pairs(recipe, rounds, model, here, seed + number)
            names = ("dpo", "online", "lora", "loop", "reference", "judge")
            own = {name: recipe[name] for name in names if name in recipe}
            dpo({**own, "task": "dpo", "model": model, "data": str(here / "pairs")}, here, seed)
        model = str(here / "checkpoint")
    if recipe.get("export"):
        shutil.copytree(model, recipe["export"], dirs_exist_ok=True)
    return out


def _paint_pairs(recipe: Mapping[str, Any], rounds: Rounds, model: str, here: Path, seed: int) -> None:
    from ..data import prompts
    from ..data.build_verifier import Build, PairData, PathBuild, build
    from ..painter import load

    found = prompts.read(str(recipe.get("prompts") or ""), recipe.get("exclude") or ())
    painter = load(model, dtype=rounds.dtype or "float32")
    wanted = Build(
        "preference", PathBuild(rounds.per_prompt, rounds.batch, seed=seed), Wording.of("instruct"),
        pairs=PairData(rounds.each, rounds.pick, seed),
    )  # fmt: skip
    build(wanted, painter, open_judge(recipe.get("judge"), painter), found, here / "pairs")
