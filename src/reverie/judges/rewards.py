"""Reward models that this field trusts, as plain functions (prompts, pictures) -> scores, higher is better.

    score = rewards.load("pickscore:yuvalkirstain/PickScore_v1", "cuda")
    score(["a red fish"], [picture])                              # the published scale
    reverie generate "..." --candidates 8 --choose orm --judge clipscore:

- clipscore: 2.5 max(cos, 0) of CLIP (Hessel et al. 2021, arXiv:2104.08718); others leave the 2.5 out or take 100.
- pickscore, hpsv2: cosine times the logit scale of a CLIP that was tuned on people's choices (Kirstain et al. 2023,
  arXiv:2305.01569; Wu et al. 2023, arXiv:2306.09341). The difference of two is the logit of the one being preferred.
- itmscore: P(match) of BLIP's image-text matching head (Li et al. 2022, arXiv:2201.12086).
- imagereward: Xu et al. 2023 (arXiv:2304.05977), standardised; see image_reward.py.
- vqascore: P(yes) to the question whether the picture shows the text, by any model that looks (Lin et al. 2024,
  arXiv:2404.01291), here or behind a server.

As a judge each score lies in [0, 1], so that several can be weighed against each other: those that are probabilities,
or bounded already, stay; a preference becomes the chance of being preferred to a picture of the score `REFERENCE`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from reverie.models.judge_names import SCORERS, Scorer, scorer
from reverie.models.pretrained import Found, eyes, fetch, find, part
from reverie.models.pretrained import load as load_network

if TYPE_CHECKING:
    from PIL.Image import Image

    from reverie.vlms import VLM

CLIP_WEIGHT = 2.5
REFERENCE = {"pickscore": 20.0, "hpsv2": 27.0}
"""The score from which on a picture counts as good, on the model's own scale: our choice, nothing published. It moves a
judge's verdict and its weight in an ensemble; which picture wins it leaves alone."""
MATCHERS = ("blip",)
LONGEST = 35
"""Tokens of a prompt that BLIP reads."""
QUESTION = 'Does this figure show "{prompt}"? Please answer yes or no.'


class Reward(Protocol):
    """A scorer with a name. `judged` brings a score to [0, 1]."""

    name: str

    def __call__(self, prompts: Sequence[str], pictures: Sequence[Image]) -> list[float]: ...

    def judged(self, score: float) -> float: ...


class CosineReward:
    """CLIPScore, PickScore, HPS v2: what an image-text model makes of a cosine."""

    def __init__(self, kind: str, clip: Any, name: str):
        self.kind, self.clip, self.name = kind, clip, name

    def __call__(self, prompts: Sequence[str], pictures: Sequence[Image]) -> list[float]:
        cosines = self.clip.cosines(prompts, pictures)
        if self.kind == "clipscore":
            return [CLIP_WEIGHT * max(cosine, 0.0) for cosine in cosines]
        return [self.clip.scale * cosine for cosine in cosines]

    def judged(self, score: float) -> float:
        if self.kind == "clipscore":
            return min(score, 1.0)
        return 1 / (1 + math.exp(REFERENCE[self.kind] - score))


class MatchReward:
    """BLIP's image-text matching: the probability that they belong together."""

    def __init__(self, model: Any, tokenizer: Any, processor: Any, name: str, batch: int = 16):
        self.model, self.tokenizer, self.processor, self.name, self.batch = model, tokenizer, processor, name, batch

    def __call__(self, prompts: Sequence[str], pictures: Sequence[Image]) -> list[float]:
        """Only prompts of one length share a batch: nothing is padded, so none depends on its neighbours."""
        import torch

        words = [self.tokenizer.encode(prompt, truncation=True, max_length=LONGEST) for prompt in prompts]
        found = [0.0] * len(words)
        for length in sorted(set(map(len, words))):
            places = [place for place, ids in enumerate(words) if len(ids) == length]
            for start in range(0, len(places), self.batch):
                some = places[start : start + self.batch]
                shown = [pictures[place].convert("RGB") for place in some]
                pixels = self.processor(shown, return_tensors="pt")["pixel_values"].to(self.model.device)
                ids = torch.tensor([words[place] for place in some], device=self.model.device)
                with torch.no_grad():
                    scores = self.model(ids, pixels, use_itm_head=True).itm_score.float().softmax(-1)[:, 1]
                for place, score in zip(some, scores.tolist(), strict=True):
                    found[place] = score
        return found

    def judged(self, score: float) -> float:
        return score


class QuestionReward:
    """VQAScore: how sure a model that looks is that a picture shows the text."""

    def __init__(self, vlm: VLM, name: str, question: str = QUESTION):
        self.vlm, self.name, self.question = vlm, name, question

    def __call__(self, prompts: Sequence[str], pictures: Sequence[Image]) -> list[float]:
        from reverie.vlms import IMAGE, Message

        asked = [self.question.replace("{prompt}", prompt.replace(IMAGE, "< image>")) for prompt in prompts]
        talks = [[Message("user", text, (picture,))] for text, picture in zip(asked, pictures, strict=True)]
        with ThreadPoolExecutor(getattr(self.vlm, "workers", 1)) as pool:  # a served model is asked several at a time
            return list(pool.map(self.vlm.yes_probability, talks))

    def judged(self, score: float) -> float:
        return score


def check(name: str) -> Found | None:
    """What a reward model's name stands for, without loading it; None behind a server, and for ImageReward, which has
    no config.json. ValueError for what is none."""
    wanted = _wanted(name)
    if wanted.kind == "vqascore":
        from reverie.vlms.named import check as check_vlm

        return check_vlm(wanted.model)
    if wanted.kind == "imagereward":
        from reverie.judges.image_reward import check as check_image_reward

        check_image_reward(wanted.model)
        return None
    return find(wanted.model, _kinds(wanted.kind), wanted.kind)


def load(name: str, device: str = "cpu", **settings: Any) -> Reward:
    """The reward model that a name such as clipscore:MODEL stands for. settings: of a VQAScore's model, as for
    `vlms.named.open_vlm`. ValueError, before any weights are read, for what is none."""
    wanted = _wanted(name)
    if wanted.kind == "vqascore":
        from reverie.vlms.named import open_vlm

        return QuestionReward(open_vlm(wanted.model, device, **settings), name)
    if wanted.kind == "itmscore":
        found = fetch(find(wanted.model, MATCHERS, wanted.kind), MATCHERS, wanted.kind)
        parts = part(found, "AutoTokenizer"), eyes(found)
        return MatchReward(load_network(found, "BlipForImageTextRetrieval", device), *parts, name)
    if wanted.kind == "imagereward":
        from reverie.judges.image_reward import ImageReward

        return ImageReward.load(wanted.model, device, name)
    from reverie.models.image_text import ImageText

    return CosineReward(wanted.kind, ImageText.load(wanted.model, device, role=wanted.kind), name)


def as_judge_function(reward: Reward) -> Callable[[list[str], list[Image]], list[float]]:
    """The reward on [0, 1], as `FunctionJudge` wants it."""
    return lambda prompts, pictures: [reward.judged(score) for score in reward(prompts, pictures)]


def _kinds(kind: str) -> tuple[str, ...]:
    if kind == "itmscore":
        return MATCHERS
    from reverie.models.image_text import KINDS

    return KINDS


def _wanted(name: str | Path) -> Scorer:
    wanted = scorer(str(name))
    if wanted is None:
        raise ValueError(f"{name} names no reward model: write KIND:MODEL, with one of {', '.join(SCORERS)}.")
    return wanted
