"""A ThinkDiff on disk: a folder whose config.json names the parts: folders or files inside it, paths, or hub ids.

    {"model_type": "thinkdiff",
     "diffusion": "black-forest-labs/FLUX.1-dev",          # a pipeline that reads its prompt through a T5 encoder
     "vlm": "Qwen/Qwen2-VL-7B-Instruct", "aligner": "thinkdiff_lvlm.pth",             # ThinkDiff-LVLM
     "tower": "Salesforce/blip2-flan-t5-xxl", "tower_aligner": "thinkdiff_clip.pth",  # ThinkDiff-CLIP
     ...}                                                  # any other field of ThinkDiffConfig

One of the two pairs is enough. Aligners are the authors' files or ours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reverie.models.diffusion_checkpoint import INDEX, fetch_pipeline, load_pipeline, read_index
from reverie.models.quiet import unless_large

if TYPE_CHECKING:
    import torch

    from reverie.models.aligner import Aligner
    from reverie.models.thinkdiff import Condition
    from reverie.vlms.transformers import TransformersVLM

KIND = "thinkdiff"
READERS = ("FluxPipeline", "StableDiffusion3Pipeline")
"""Pipelines whose T5 encoder the aligner's vectors can stand for."""


@dataclass(frozen=True)
class ThinkDiffConfig:
    """What config.json says; see above for the parts."""

    diffusion: str
    vlm: str | None = None
    aligner: str | None = None
    tower: str | None = None
    tower_aligner: str | None = None
    instruction: str | None = None
    """With which the VLM is asked about pairs of pictures and words; None takes that for large models."""
    tokens: int = 128
    run_on: bool = True
    """Whether each answer is `tokens` long; otherwise it ends where the VLM ends it."""
    temperature: float = 0.6
    top_p: float = 0.9
    factor: int = 2
    """By which the grid of a picture's patches is made smaller."""
    text_tokens: int = 128
    """To which a text beside pictures is padded."""
    number_pictures: bool = True

    @classmethod
    def read(cls, folder: Path) -> ThinkDiffConfig:
        """ValueError, in one sentence, for a folder that cannot be used; loads and fetches nothing."""
        path = folder / "config.json"
        try:
            told = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is not a valid configuration ({error}); write it again.") from error
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(told) - known - {"model_type", "reverie"}):
            raise ValueError(f"{path} has no use for {unknown[0]!r}; known are {', '.join(sorted(known))}.")
        if not told.get("diffusion"):
            raise ValueError(f"{path} names no diffusion pipeline; give `diffusion`, a folder or a hub id.")
        for eyes, aligner in (("vlm", "aligner"), ("tower", "tower_aligner")):
            if bool(told.get(eyes)) != bool(told.get(aligner)):
                raise ValueError(f"{path} must name `{eyes}` and `{aligner}` together: they were trained together.")
            if told.get(aligner) and not placed(folder, told[aligner]).is_file():
                raise ValueError(f"{path} names the aligner {told[aligner]}, but there is no such file.")
        if not told.get("vlm") and not told.get("tower"):
            raise ValueError(f"{path} names neither `vlm` nor `tower`, so there is nothing to look with.")
        inner = placed(folder, told["diffusion"])
        if inner.is_dir() and (index := read_index(inner)) is not None and index["_class_name"] not in READERS:
            raise ValueError(f"{inner} is a {index['_class_name']}, but only {' and '.join(READERS)} read through T5.")
        return cls(**{name: value for name, value in told.items() if name in known})


def placed(folder: Path, name: str) -> Path:
    """Where a part lies, if it is not on the hub: inside the folder, or at a path of its own."""
    return folder / name if (folder / name).exists() else Path(name)


class ThinkDiff:
    """Its loaded parts; `T5` is loaded when it is first needed."""

    def __init__(
        self,
        pipeline: Any,
        config: ThinkDiffConfig,
        diffusion: Path,
        vlm: TransformersVLM | None = None,
        aligner: Aligner | None = None,
        tower: Any = None,
        tower_aligner: Aligner | None = None,
    ):
        """diffusion: the folder of the pipeline, where its T5 encoder lies."""
        self.pipeline, self.config, self.diffusion = pipeline, config, diffusion
        self.vlm, self.aligner, self.tower, self.tower_aligner = vlm, aligner, tower, tower_aligner
        self.index = json.loads((diffusion / INDEX).read_text("utf-8"))
        self.part = t5_part(self.index)
        self._check()

    @property
    def device(self) -> torch.device:
        return self.pipeline.device

    @property
    def dtype(self) -> torch.dtype:
        return self.pipeline.dtype

    def need_t5(self) -> None:
        """Loads the pipeline's T5 encoder, if it is not there yet."""
        if getattr(self.pipeline, self.part) is None:
            from transformers import T5EncoderModel
            from transformers.utils import logging

            with unless_large(self.diffusion / self.part, logging):
                encoder: Any = T5EncoderModel.from_pretrained(self.diffusion / self.part, dtype=self.dtype)
            self.pipeline.register_modules(**{self.part: encoder.to(self.device).eval()})

    def condition(self, context: Sequence[Any], prompt: str) -> Condition:
        """What is painted from: of pictures alone by the tower, if there is one, and of all else by the VLM."""
        from reverie.models.thinkdiff import INSTRUCTION, look, question, think

        said = self.config
        if self.tower is not None and not any(isinstance(part, str) for part in context):
            assert self.tower_aligner is not None
            self.need_t5()
            words = getattr(self.pipeline, self.part.replace("text_encoder", "tokenizer"))
            return look(
                self.tower, self.tower_aligner, context, prompt, getattr(self.pipeline, self.part), words,
                factor=said.factor, text_tokens=said.text_tokens,
            )  # fmt: skip
        if self.vlm is None:
            raise ValueError("ThinkDiff-CLIP reads pictures and one prompt; words between them need a VLM.")
        assert self.aligner is not None
        asked = question(context, prompt, said.instruction or INSTRUCTION)
        return think(
            self.vlm, self.aligner, asked, tokens=said.tokens, run_on=said.run_on, temperature=said.temperature,
            top_p=said.top_p,
        )  # fmt: skip

    def _check(self) -> None:
        """ValueError for an aligner that writes vectors of another width than the diffusion model reads."""
        wanted = self.pipeline.transformer.config.joint_attention_dim
        for aligner in (self.aligner, self.tower_aligner):
            if aligner is not None and aligner.config.target != wanted:
                raise ValueError(
                    f"the aligner writes vectors {aligner.config.target} wide, and the diffusion model reads {wanted}; "
                    "they must have been trained for the same T5."
                )


def to_device(model: Any, device: str) -> Any:
    return model.to(device)


def t5_part(index: dict[str, Any]) -> str:
    """Which part of a pipeline is its T5 encoder."""
    return next(name for name, what in index.items() if isinstance(what, list) and what[1] == "T5EncoderModel")


def load_thinkdiff(folder: str | Path, *, dtype: torch.dtype | None = None, device: str = "cpu") -> ThinkDiff:
    """All parts but the T5 encoder; hub ids are fetched now."""
    from reverie.models.aligner import load_aligner
    from reverie.models.thinkdiff import check_fit
    from reverie.models.vision_tokens import load_tower
    from reverie.vlms.transformers import TransformersVLM

    folder = Path(folder)
    said = ThinkDiffConfig.read(folder)
    inner = placed(folder, said.diffusion)
    diffusion = inner if inner.is_dir() else fetch_pipeline(said.diffusion)
    index = read_index(diffusion) if diffusion is not None else None
    if diffusion is None or index is None or index["_class_name"] not in READERS:
        raise ValueError(f"{said.diffusion} is no pipeline that reads through T5; give one of {', '.join(READERS)}.")
    pipeline = load_pipeline(diffusion, dtype=dtype, device=device, without=[t5_part(index)])
    vlm = aligner = tower = tower_aligner = None
    if said.vlm and said.aligner:
        source, aligner = placed(folder, said.vlm), load_aligner(placed(folder, said.aligner)).to(device)
        vlm = TransformersVLM.load(
            source if source.is_dir() else said.vlm, device=device, dtype=dtype, number_pictures=said.number_pictures,
            states=aligner.config.states,
        )  # fmt: skip
        check_fit(vlm, aligner)
    if said.tower and said.tower_aligner:
        source = placed(folder, said.tower)
        tower = to_device(load_tower(source if source.is_dir() else said.tower, dtype), device)
        tower_aligner = load_aligner(placed(folder, said.tower_aligner), source=tower.config.hidden_size).to(device)
    return ThinkDiff(pipeline, said, diffusion, vlm, aligner, tower, tower_aligner)
