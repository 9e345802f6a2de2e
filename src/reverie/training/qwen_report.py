"""What a trained atelier-qwen is worth, in large batches on one device: pictures inspected, facts asked.

The numbers are those of `reverie evaluate`, whose rules judge here too; only the batches are larger, so that a GPU is
full. One picture for each prompt, with its number in the list as its seed.

    python -m reverie.training.qwen_report FOLDER --out scores
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..models.diffusion_family import pack
from ..models.diffusion_qwen import QwenImage
from .janus import stack
from .qwen import BLANK, Encoder, latents_of
from .qwen_vlm import chat_text, states_of
from .samples import sheet
from .vlm_build import END


class Painting:
    """A pipeline's parts on a device; pictures and answers in batches."""

    def __init__(self, pipeline: Any, own: dict[str, Any], device: str, batch: int = 256):
        self.pipeline, self.own, self.device, self.batch = pipeline, own, torch.device(device), batch
        for name in ("vae", "text_encoder", "transformer"):
            getattr(pipeline, name).to(self.device).eval()
        self.family, self.size = QwenImage(pipeline), (own["height"], own["width"])
        self.encoder = Encoder(pipeline.text_encoder, pipeline.tokenizer, own["width"])

    @torch.no_grad()
    def paint(self, prompts: Sequence[str], pictures: Sequence[Image.Image] = (), first: int = 0) -> list[Image.Image]:
        """One picture for each prompt; with pictures, these changed. Seeds count up from `first`."""
        found: list[Image.Image] = []
        for start in range(0, len(prompts), self.batch):
            part = slice(start, start + self.batch)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type != "cpu"):
                found += self._paint(list(prompts[part]), list(pictures[part]), first + start)
        return found

    def _paint(self, prompts: list[str], pictures: list[Image.Image], seed: int) -> list[Image.Image]:
        side, source, seen = self.size[0], None, None
        shapes: tuple[tuple[int, int, int], ...] = ()
        if pictures:
            given = stack([one.convert("RGB").resize(self.size) for one in pictures]).to(self.device)
            latents = latents_of(self.pipeline.vae, given.float() / 127.5 - 1)[:, :, 0]
            source, seen = pack(latents).float(), self.encoder.see(given)
            shapes = ((1, side // 16, side // 16),)
        texts = [self._states(lines, seen) for lines in (prompts, [BLANK] * len(prompts))]
        generators = [torch.Generator().manual_seed(seed + number) for number in range(len(prompts))]
        x = self.family.noise(generators, self.size).to(self.device, torch.float32)
        sigmas = self.family.sigmas(self.own["steps"], self.size).tolist()
        for now, then in pairwise(sigmas):
            times = torch.full([len(x)], now, device=self.device)
            cond, blank = (
                self.family.flow(x, times, states, mask, self.size, source, shapes).float() for states, mask in texts
            )
            x = x + (then - now) * self.family.guided(cond, blank, self.own["guidance"])
        pixels = torch.cat([self.family.decode(part, self.size).float() for part in x.split(64)])
        shown = ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(one) for one in shown]

    def _states(self, prompts: list[str], seen: Tensor | None) -> tuple[Tensor, Tensor]:
        rows = self.encoder.rows("paint" if seen is None else "edit", prompts)
        states, mask = self.encoder(_moved(rows, self.device), seen)
        return states.float(), mask

    @torch.no_grad()
    def answer(self, questions: Sequence[str], tokens: int = 64) -> list[str]:
        """The likeliest answers to questions in words, each until it ends."""
        found: list[str] = []
        for start in range(0, len(questions), self.batch):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type != "cpu"):
                found += self._answer(questions[start : start + self.batch], tokens)
        return found

    def _answer(self, questions: Sequence[str], tokens: int) -> list[str]:
        words, vlm = self.pipeline.tokenizer, self.pipeline.text_encoder
        asked = [words(chat_text(line), add_special_tokens=False).input_ids for line in questions]
        lengths = torch.tensor([len(row) for row in asked], device=self.device)
        ids = torch.full((len(asked), int(lengths.max()) + tokens), words.pad_token_id, device=self.device)
        for row, line in enumerate(asked):
            ids[row, : len(line)] = torch.tensor(line, device=self.device)
        end, rows = words.convert_tokens_to_ids(END), torch.arange(len(asked), device=self.device)
        done = torch.zeros_like(lengths, dtype=torch.bool)
        places = torch.arange(ids.shape[1], device=self.device).expand(len(asked), 3, -1)
        for step in range(tokens):
            width = int(lengths.max())
            hidden = states_of(vlm, -1, {"ids": ids[:, :width], "places": places[..., :width]}, None)
            chosen = vlm.lm_head(hidden[rows, lengths - 1]).argmax(-1)
            done |= chosen == end
            ids[rows[~done], lengths[~done]] = chosen[~done]
            lengths += ~done
            if step % 8 == 7 and bool(done.all()):
                break
        return [
            words.decode(ids[row, len(line) : int(lengths[row])].tolist(), skip_special_tokens=True)
            for row, line in enumerate(asked)
        ]


def _moved(rows: dict[str, Any], device: torch.device) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in rows.items()}


def load_painting(folder: str | Path, device: str = "cpu", batch: int = 256) -> Painting:
    """The pipeline that `qwen_recipes.qwen` left in `folder`."""
    from ..models.diffusion_checkpoint import load_pipeline, read_index

    index = read_index(Path(folder))
    if index is None:
        raise ValueError(f"{folder} holds no diffusion pipeline; give a folder with a model_index.json.")
    return Painting(
        load_pipeline(folder, dtype=torch.float32, without=("processor",)), index["_reverie"], device, batch
    )


def geneval(painting: Painting, look: Callable[..., Any], few: int | None = None) -> dict[str, Any]:
    """`atelier-geneval`, the first picture of each prompt."""
    from ..benchmarks.atelier_geneval import judge, samples

    asked = samples()[:few]
    pictures = painting.paint([one.prompt for one in asked])
    scores = [judge(one, seen).score for one, seen in zip(asked, look(pictures), strict=True)]
    return {"pictures": pictures[:: max(1, len(pictures) // 72)], "scores": scores, "tags": [one.tag for one in asked]}


def wise(
    painting: Painting, look: Callable[..., Any], prompts: Callable[[Any], str], few: int | None = None
) -> dict[str, Any]:
    """`atelier-wise` from these prompts."""
    from ..benchmarks.atelier_wise import judge, samples

    asked = samples()[:few]
    pictures = painting.paint([prompts(one) for one in asked])
    scores = [judge(one, seen).score for one, seen in zip(asked, look(pictures), strict=True)]
    return {"pictures": pictures[:: max(1, len(pictures) // 72)], "scores": scores, "tags": [one.tag for one in asked]}


def rise(
    painting: Painting, look: Callable[..., Any], prompts: Callable[[Any], str], few: int | None = None
) -> dict[str, Any]:
    """`atelier-rise` from these instructions."""
    from ..benchmarks.atelier_rise import inputs, judge, samples
    from ..benchmarks.eyes import Inspected

    asked = samples()[:few]
    given: list[Any] = [inputs(one).picture for one in asked]
    pictures = painting.paint([prompts(one) for one in asked], given)
    judged = [
        judge(one, Inspected(seen, picture)) for one, picture, seen in zip(asked, pictures, look(pictures), strict=True)
    ]
    pairs = [picture for pair in zip(given, pictures, strict=True) for picture in pair]
    return {
        "pictures": pairs[:144], "scores": [one.score for one in judged], "tags": [one.tag for one in asked],
        "reasoning": [float(one.value["reasoning"]) for one in judged],
        "consistency": [float(one.value["consistency"]) for one in judged],
    }  # fmt: skip


def plain_rise(sample: Any) -> str:
    """The edit of a sample of `atelier-rise` in plain words; spatial ones are plain as they stand."""
    from ..atelier.scene import Scene
    from .qwen_edits import plain_edit

    if sample.tag == "spatial_reasoning":
        return sample.prompt
    return plain_edit(Scene.from_json(sample.record["before"]), Scene.from_json(sample.record["after"]))


def known(painting: Painting, few: int | None = None) -> dict[str, Any]:
    """How many facts are told by wordings of the training side and by those held out: the thought, word by word."""
    from ..atelier.knowledge import facts, wordings
    from .qwen_build import QUESTIONS

    found: dict[str, Any] = {}
    for split in ("train", "held_out"):
        asked = [QUESTIONS[0].format(wordings(fact, split)[0]) for fact in facts()[:few]]
        told = painting.answer(asked)
        found[split] = [float(text.strip() == fact.thought) for text, fact in zip(told, facts()[:few], strict=True)]
        found[f"{split} examples"] = list(zip(asked, told, strict=True))[:20]
    return found


def report(
    folder: str | Path, inspector: str | Path, out: str | Path, device: str, parts: Sequence[str], few: int | None
) -> None:
    """Writes scores.json.gz, one row of scores for each part, and a sheet of pictures for each. few: so many prompts of
    each part only."""
    from ..atelier.inspector import Inspector
    from ..benchmarks.atelier_wise import samples as wise_samples

    painting, out = load_painting(folder, device), Path(out)
    eyes = Inspector.load(inspector, device)
    out.mkdir(parents=True, exist_ok=True)
    own = wise_samples()
    rewritten = {one.id: one.record["rewritten"] for one in own}
    makers: dict[str, Callable[[], dict[str, Any]]] = {
        "facts": lambda: known(painting, few),
        "geneval": lambda: geneval(painting, eyes.look, few),
        "wise-raw": lambda: wise(painting, eyes.look, lambda one: one.prompt, few),
        "wise-told": lambda: wise(painting, eyes.look, lambda one: rewritten[one.id], few),
        "rise-raw": lambda: rise(painting, eyes.look, lambda one: one.prompt, few),
        "rise-told": lambda: rise(painting, eyes.look, plain_rise, few),
    }
    scores: dict[str, Any] = {}
    for part in parts:
        found = makers[part]()
        pictures = found.pop("pictures", [])
        scores[part] = found
        if pictures:
            columns = min(12, len(pictures))
            whole = pictures[: len(pictures) // columns * columns]
            sheet([np.asarray(one) for one in whole], columns).save(out / f"{part}.jpg")
        means = {name: round(sum(row) / len(row), 4) for name, row in found.items() if isinstance(row[0], float)}
        print(part, json.dumps(means), flush=True)
        with gzip.open(out / "scores.json.gz", "wt") as file:
            json.dump(scores, file)


PARTS = ("facts", "geneval", "wise-raw", "wise-told", "rise-raw", "rise-told")


def main() -> None:
    import argparse

    from .recipes import shipped

    parser = argparse.ArgumentParser(description="What a trained atelier-qwen is worth.")
    parser.add_argument("folder")
    parser.add_argument("--inspector", default=None)
    parser.add_argument("--out", default="scores")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--few", type=int, default=None)
    told = parser.parse_args()
    inspector = told.inspector or shipped("atelier-inspector")
    report(told.folder, inspector, told.out, told.device, told.parts, told.few)


if __name__ == "__main__":
    main()
