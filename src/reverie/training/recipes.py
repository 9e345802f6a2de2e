"""Recipes: a YAML file that names what to train and the few numbers that matter; everything else is derived.

    task: janus                 # one of TASKS
    out: runs/atelier/janus     # checkpoints, logs, samples; a stopped run goes on from here
    seed: 0
    loop: {minutes: 60, ...}    # training.loop.LoopConfig
    ...                         # sections of the task, see its function below

`reverie train FILE key=value section.key=value` overrides values. Unknown keys are refused before anything starts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import yaml

from .look import LOOKING

T = TypeVar("T")


def run(path: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Train what the recipe says; returns the folder with the result. ValueError, in one sentence, for bad recipes."""
    recipe = read(path, overrides)
    task = TASKS[recipe["task"]]
    done = task(recipe, Path(recipe["out"]))
    from .processes import leave

    leave()
    return done


def read(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The recipe with its overrides, checked for what every recipe must have."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no recipe {path}; those that come with Reverie are in recipes/")
    try:
        recipe = yaml.safe_load(path.read_text("utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(recipe, dict):
        raise ValueError(f"{path} must hold keys and values, as the recipes in recipes/ do")
    for override in overrides:
        key, sign, value = override.partition("=")
        if not sign or not key:
            raise ValueError(f"{override!r} is not of the form key=value")
        _put(recipe, key, _value(value))
    if recipe.get("task") not in TASKS:
        raise ValueError(f"{path}: task is {recipe.get('task')!r}, but must be one of {', '.join(TASKS)}")
    if not recipe.get("out"):
        raise ValueError(f"{path}: give `out`, the folder for checkpoints and logs")
    return recipe


def _value(text: str) -> Any:
    """What an override means: YAML, and 2e-3, which YAML 1.1 takes for a word."""
    value = yaml.safe_load(text)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return float(value)
    return value


def _put(recipe: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, key = dotted.split(".")
    for section in sections:
        recipe = recipe.setdefault(section, {})
        if not isinstance(recipe, dict):
            raise ValueError(f"{dotted}: {section} is a value, not a section")
    recipe[key] = value


def section(recipe: Mapping[str, Any], name: str, kind: type[T]) -> T:
    """A section of a recipe as its dataclass; unknown keys are errors that name the known ones."""
    values = dict(recipe.get(name) or {})
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - known):
        raise ValueError(f"recipe section {name!r} has no key {unknown[0]!r}; known are {', '.join(sorted(known))}")
    made = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})
    looking = LOOKING.get()
    if looking is not None:
        looking[name] = made
    return made


def _allow(recipe: Mapping[str, Any], *names: str) -> None:
    if unknown := sorted(set(recipe) - {"task", "out", "seed", "loop", *names}):
        raise ValueError(f"recipe has no key {unknown[0]!r}; this task knows {', '.join(sorted(names))}")


def _seed(recipe: Mapping[str, Any]) -> int:
    import torch

    seed = int(recipe.get("seed", 0))
    torch.manual_seed(seed)
    return seed


# --- the tasks: a handful of build lines each ---


def _tokenizer(recipe: dict[str, Any], out: Path) -> Path:
    """Sections: model (TokenizerConfig), loop; from: a finished run or a Janus checkpoint to go on from; decoder_only:
    its codes stay; export: folder for that Janus checkpoint with the refined decoder."""
    from .loop import LoopConfig, train
    from .samples import reconstructions
    from .tokenizer import TokenizerConfig, TokenizerTask, finished_tokenizer

    _allow(recipe, "model", "from", "decoder_only", "export")
    if recipe.get("export") and not recipe.get("decoder_only"):
        raise ValueError("export: other codes would spoil what the checkpoint paints; set decoder_only: true too.")
    config, loop, seed = section(recipe, "model", TokenizerConfig), section(recipe, "loop", LoopConfig), _seed(recipe)
    task = TokenizerTask(config, seed)
    if recipe.get("from"):
        task.model.load_state_dict(finished_tokenizer(recipe["from"])[1].state_dict())
    if recipe.get("decoder_only"):
        task.freeze_codes()
    train(task, loop, out, lambda step, folder: reconstructions(task, step, folder), recipe)
    if recipe.get("export"):
        _export_decoder(task.model, recipe["from"], Path(recipe["export"]))
    return out


def _export_decoder(refined: Any, checkpoint: str, folder: Path) -> None:
    """The Janus `checkpoint` with the refined tokenizer in place of its own, into `folder`."""
    from ..models.janus_checkpoint import load_janus, save_janus

    model, words = load_janus(checkpoint)
    model.vqmodel.load_state_dict(refined.state_dict())
    save_janus(model, words, folder)


def _janus(recipe: dict[str, Any], out: Path) -> Path:
    """Sections: tokenizer (folder of a tokenizer run), model (JanusSizes), mix (JanusTraining), loop; from: a Janus
    checkpoint to go on from instead of a fresh model (with `tokenizer`, everything but how it paints); decoder: a
    refined tokenizer run whose decoder replaces the first one at the end; export: folder for the finished checkpoint.
    """
    from ..models.janus_checkpoint import save_janus
    from .card import write_card
    from .janus import JanusTask, JanusTraining
    from .loop import LoopConfig, train
    from .quick_norm import quicken
    from .samples import paintings
    from .tokenizer import finished_tokenizer

    _allow(recipe, "tokenizer", "decoder", "model", "mix", "from", "export")
    mix, loop, seed = section(recipe, "mix", JanusTraining), section(recipe, "loop", LoopConfig), _seed(recipe)
    model, words = _janus_to_train(recipe)
    task = JanusTask(quicken(model), words, mix, seed)
    train(task, loop, out, lambda step, folder: paintings(task, step, folder), recipe)
    if recipe.get("decoder"):
        _, refined = finished_tokenizer(recipe["decoder"])
        model.vqmodel.load_state_dict(refined.state_dict())
    folder = Path(recipe.get("export") or out / "checkpoint")
    save_janus(model, words, folder)
    write_card(
        out, folder, "Janus of the Atelier", ["Trained from scratch on drawn scenes; scores are in docs/results.md."]
    )
    return out


def _janus_to_train(recipe: Mapping[str, Any]) -> tuple[Any, Any]:
    """(model, tokenizer of text): a fresh one around the tokenizer run, or the checkpoint to go on from, or both."""
    from ..models.janus_checkpoint import load_janus
    from ..models.janus_text import ImageRules, JanusTokenizer
    from .janus import JanusSizes, atelier_texts, build_janus, move_in
    from .tokenizer import finished_tokenizer
    from .words import train_words

    sizes = section(recipe, "model", JanusSizes)
    if recipe.get("from"):
        model, words = load_janus(recipe["from"])
        if recipe.get("tokenizer"):
            model = move_in(model, build_janus(sizes, *finished_tokenizer(recipe["tokenizer"])))
        model.vqmodel.requires_grad_(False)
        return model.train(), words
    vq_config, vq = finished_tokenizer(recipe.get("tokenizer"))
    words = JanusTokenizer(train_words(atelier_texts(), sizes.vocabulary), ImageRules(vq_config.side))
    return build_janus(sizes, vq_config, vq), words


def _vlm(recipe: dict[str, Any], out: Path) -> Path:
    """Sections: model (VlmSizes), mix (VlmTraining), loop; from: an earlier run of this task to go on from (heads and
    all); glimpse: captions and episodes of each task tried at every sample; export: folder for the checkpoint."""
    from .vlm_recipes import vlm

    _allow(recipe, "model", "mix", "from", "glimpse", "export")
    return vlm(recipe, out, _seed(recipe))


def _clip(recipe: dict[str, Any], out: Path) -> Path:
    """Sections: model (ClipSizes), mix (ClipTraining), loop; export: folder for the finished checkpoint."""
    from .vlm_recipes import clip

    _allow(recipe, "model", "mix", "export")
    return clip(recipe, out, _seed(recipe))


def _inspector(recipe: dict[str, Any], out: Path) -> Path:
    """Sections: model (InspectorSizes), data (InspectorConfig), loop; from: a folder of weights to go on from;
    export: folder for the finished weights."""
    from ..atelier.inspector import Inspector, InspectorNet, InspectorSizes
    from .card import write_card
    from .inspector import InspectorConfig, InspectorTask
    from .loop import LoopConfig, train

    _allow(recipe, "model", "data", "from", "export")
    sizes, data = section(recipe, "model", InspectorSizes), section(recipe, "data", InspectorConfig)
    loop, seed = section(recipe, "loop", LoopConfig), _seed(recipe)
    task = InspectorTask(data, sizes, seed)
    if recipe.get("from"):
        task.model.load_state_dict(Inspector.load(recipe["from"]).net.state_dict())
    net = train(task, loop, out, recipe=recipe)
    assert isinstance(net, InspectorNet)
    folder = Path(recipe.get("export") or out / "weights")
    Inspector(net).save(folder)
    write_card(out, folder, "Inspector of the Atelier", ["Trained on drawn scenes; accuracies are in docs/results.md."])
    return out


def shipped(name: str) -> Path:
    from ..models.registry import entries

    folder = entries()[name].folder
    if folder is None or not folder.is_dir():
        raise ValueError(f"the weights of {name} are not in this installation; give a folder in the recipe")
    return folder


def _thinkdiff_lvlm(recipe: dict[str, Any], out: Path) -> Path:
    """Keys: features (a folder, ours or of the authors' .tar shards), kind (generated or input), t5, answers (the VLM's
    tokenizer, if the folder does not hold it), from (an aligner to go on from), export. Sections: aligner
    (AlignerSetup), masking (Masking), data (AlignConfig), loop."""
    from .align_recipes import lvlm

    _allow(recipe, "features", "kind", "states", "t5", "answers", "aligner", "masking", "data", "from", "export")
    return lvlm(recipe, out, _seed(recipe))


def _thinkdiff_clip(recipe: dict[str, Any], out: Path) -> Path:
    """Keys: captions (a JSONL file), blip2 or tower (a CLIP) and t5, downsample, from, export. Sections: aligner, data,
    loop, as above."""
    from .align_recipes import clip

    _allow(recipe, "captions", "blip2", "tower", "t5", "downsample", "aligner", "data", "from", "export")
    return clip(recipe, out, _seed(recipe))


@dataclass(frozen=True)
class Elsewhere:
    """A task that stands, with what its recipe takes, in a module of its own."""

    module: str
    function: str
    keys: str
    needs: str

    def check(self, recipe: Mapping[str, Any]) -> None:
        """ValueError for a key that the task does not know, and for one that it misses."""
        _allow(recipe, *self.keys.split(), *self.needs.split())
        for key in self.needs.split():
            if not recipe.get(key):
                raise ValueError(f"give `{key}`: a name, hub id or folder, such as {key}=atelier-janus")

    def __call__(self, recipe: dict[str, Any], out: Path) -> Path:
        self.check(recipe)
        return getattr(import_module(f".{self.module}", __package__), self.function)(recipe, out, _seed(recipe))


def _text_space(recipe: dict[str, Any], out: Path) -> Path:
    """Sections: model (TextSizes), mix (TextTraining), loop; export: folder for the finished T5."""
    from .flux_recipes import text_space

    _allow(recipe, "model", "mix", "export")
    return text_space(recipe, out, _seed(recipe))


def _autoencoder(recipe: dict[str, Any], out: Path) -> Path:
    """from: an autoencoder, a finished run of the tokenizer, or a Janus that holds one; a fresh transform if left out.
    Sections: mix (AutoencoderTraining), loop; export: folder for the finished weights."""
    from .flux_recipes import autoencoder

    _allow(recipe, "from", "mix", "export")
    return autoencoder(recipe, out, _seed(recipe))


def _flux(recipe: dict[str, Any], out: Path) -> Path:
    """Keys: t5 (a finished T5), vae (an autoencoder, or a tokenizer to make one from), from (a FLUX to go on from),
    export. Sections: model (FluxSizes), mix (FluxTraining), loop."""
    from .flux_recipes import flux

    _allow(recipe, "t5", "vae", "from", "model", "mix", "export")
    return flux(recipe, out, _seed(recipe))


TASKS: dict[str, Callable[[dict[str, Any], Path], Path]] = {
    "tokenizer": _tokenizer,
    "janus": _janus,
    "llamagen": Elsewhere("painter_recipes", "llamagen", "tokenizer words decoder model mix from export", ""),
    "showo": Elsewhere("painter_recipes", "showo", "tokenizer words model mix from export", ""),
    "vlm": _vlm,
    "clip": _clip,
    "inspector": _inspector,
    "reinforce": Elsewhere(
        "story_recipes",
        "reinforced",
        "rollouts judging tree grpo alarms from inspector prompts rewards dtype lora export keep",
        "",
    ),
    "stories": Elsewhere("story_recipes", "sft", "mix lora dtype from export", "model data"),
    "think-sft": Elsewhere("t2g_recipes", "sft", "adapters dtype wording mix lora", "model data"),
    "dual-grpo": Elsewhere(
        "t2g_recipes",
        "dual_grpo",
        "rollouts judging adapters dtype wording judges inspector tree flow thinker painter grpo alarms",
        "model data",
    ),
    "judge": Elsewhere("verify_recipes", "judge", "data wording judge lora export", "model"),
    "judge-claims": Elsewhere(
        "claim_recipes", "judge_claims", "data wording moves lenient strict blend claims lora export base rank", "model"
    ),
    "self-correction": Elsewhere("verify_recipes", "self_correction", "data wording correction lora export", "model"),
    "dpo": Elsewhere("verify_recipes", "dpo", "data reference judge dpo online lora export", "model"),
    "dpo-iterative": Elsewhere(
        "verify_recipes", "dpo_iterative", "prompts exclude reference judge rounds dpo online lora export", "model"
    ),
    "text-space": _text_space,
    "autoencoder": _autoencoder,
    "flux": _flux,
    "qwen-vae": Elsewhere("qwen_recipes", "vae", "model mix from export", ""),
    "qwen-vlm": Elsewhere("qwen_recipes", "vlm", "model mix from words export", ""),
    "qwen": Elsewhere("qwen_recipes", "qwen", "model mix vae vlm from export", ""),
    "thinkdiff-lvlm": _thinkdiff_lvlm,
    "thinkdiff-clip": _thinkdiff_clip,
}
