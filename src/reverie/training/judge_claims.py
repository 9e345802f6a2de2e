"""A judge learns to compare: many claims about one picture, which is looked at and read once for all of them.

An example of the published training is a picture, a question, and one bit. Whoever starts from a model that describes
pictures still has to learn how a description is held against a prompt; from one bit an example that took us nowhere in
ten thousands of examples. Here every picture comes with several claims (atelier/claims.py), half of them true and the
others nearly, and more is learnt beside the verdict:

    parts   the verdict on what has been read so far, at the last word of each part of a claim
    match   where to look: from that word a head of each middle layer is to look at the picture if it holds what the
            part names, and away from it if not; every part of a batch is held against every picture of it, which is
            what makes it quick
    where   the place of what a part names, read by a plain head from what that word hands on to the last layer
    tell    the next word of claims that are true
    rank    which of two painted pictures is what their prompt says, if only one is: Bradley and Terry's probability of
            that, sigmoid(s - t) of the two verdicts in nats (Biometrika 39, 1952), as reward models are trained
    reasons what is wrong with a finished picture, in words behind the no

A verdict is the first word of the answer, yes or no, as the judge is asked. Pictures are drawn, or painted and labelled
(data/looks.py): what the inspector saw in a finished picture answers any claim; of an unfinished one, what it became.
Whether a painted picture is what its own prompt says is learnt as surely as it is so (`looks.surely_right`).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..atelier.claims import Claim, claim, seen_in
from ..judges.moved import MOVES, moved
from .cross_entropy import cross_entropy
from .janus import pad
from .vlm_build import END
from .vlm_forward import Held

if TYPE_CHECKING:
    from ..atelier.inspector import Sighting
    from ..atelier.scene import Scene
    from ..data.looks import Look, Looks
    from ..judges.vlm import Wording
    from .qwen_judge import QwenStudent

UNASKED = -100
Names = dict[tuple[str, str | None], list[tuple[float, float]]]
"""Kinds with a colour, and without, and where in the picture such things are."""
Batch = dict[str, Tensor]


@dataclass
class ClaimTraining:
    """pictures: of a step; claims: about each. drawn: share of pictures that are drawn. unfinished: share of painted
    ones that are shown unfinished. pairs: share of painted ones that come in twos of one prompt, a right and a wrong
    one. moved: share of painted ones that are shown from elsewhere (judges/moved.py). parts, match, where, tell, rank,
    reasons: weights of what is learnt beside the verdict. tasks: how often claims are of each task, as in claims.TASKS
    if left out. vision: whether the eyes learn."""

    pictures: int = 24
    claims: int = 4
    drawn: float = 1.0
    unfinished: float = 0.4
    pairs: float = 0.0
    moved: float = 0.0
    parts: float = 1.0
    match: float = 1.0
    where: float = 0.0
    tell: float = 0.1
    rank: float = 0.0
    reasons: float = 0.0
    tasks: dict[str, float] = field(default_factory=dict)
    vision: bool = True

    def __post_init__(self) -> None:
        if self.pictures < 1 or self.claims < 2:
            raise ValueError(f"pictures={self.pictures}, claims={self.claims}: at least one, with two claims each.")
        shares = {name: getattr(self, name) for name in ("drawn", "unfinished", "pairs", "moved")}
        if not all(0 <= share <= 1 for share in shares.values()):
            told = ", ".join(f"{name}={share}" for name, share in shares.items())
            raise ValueError(f"{told}: shares between 0 and 1.")


@dataclass(frozen=True)
class Asked:
    """A question about a picture: its name in the wording, the claim that stands in it, how surely the answer is yes
    (None: as the claim holds), and the reason that belongs behind a no."""

    question: str
    said: Claim
    sure: float | None = None
    reason: str = ""


Shown = tuple[np.ndarray, list[Asked], Names]
"""A picture (3, S, S) uint8, what is asked about it, and what it holds."""


def drawn_scene(rng: random.Random) -> Scene:
    """A scene as somebody wanted it, or one in which something went wrong."""
    from ..atelier.flaws import flaw
    from ..atelier.sample import compose, random_demand

    demand = random_demand(rng, rng.choice((None, "two", "count", "position", "colour_attr")))
    if rng.random() < 0.5:
        return compose(demand, rng, loose=rng.random() < 0.5)
    return flaw(demand, rng).before


def names_in(sighting: Sighting) -> Names:
    found: Names = {}
    for thing in sighting.objects:
        for name in ((thing.kind, thing.colour), (thing.kind, None)):
            found.setdefault(name, []).append((thing.x, thing.y))
    return found


def pairs_in(painted: Sequence[Looks]) -> Iterator[tuple[list[Look], list[Look]]]:
    """Of each prompt that has both, its right images and its wrong ones."""
    for looks in painted:
        of: dict[str, tuple[list[Look], list[Look]]] = {}
        for look in looks.rows:
            of.setdefault(look.own.text, ([], []))[not look.own.holds].append(look)
        yield from (both for both in of.values() if all(both))


class ClaimTask:
    """`training.loop.Task`. painted: needed unless all pictures are drawn."""

    def __init__(
        self,
        student: QwenStudent,
        wording: Wording,
        config: ClaimTraining,
        seed: int = 0,
        painted: Sequence[Looks] = (),
    ):
        if config.drawn < 1 and not painted:
            raise ValueError("claims.drawn below 1 needs painted pictures: give `data`.")
        self.student, self.wording, self.config, self.seed, self.painted = student, wording, config, seed, painted
        student.model.model.visual.requires_grad_(config.vision)
        width = student.model.config.text_config.hidden_size
        self.model = nn.ModuleDict({"judge": student.model, "where": nn.Linear(width, 2)})
        self.yes, self.no = (min(student.vlm.first_ids(word)) for word in ("yes", "no"))
        self.pairs = list(pairs_in(painted)) if config.pairs else []
        if config.pairs and not self.pairs:
            raise ValueError("claims.pairs needs prompts of which one picture is right and another wrong.")

    # Data.

    def batch(self, step: int) -> Batch:
        rng, config = random.Random(f"{self.seed}/{step}"), self.config
        shown: list[Shown] = []
        ranked: list[tuple[int, int]] = []
        while len(shown) < config.pictures:
            if rng.random() < config.drawn:
                shown.append(self._drawn(rng))
            elif config.pairs and len(shown) + 2 <= config.pictures and rng.random() < config.pairs:
                ranked.append((len(shown) * config.claims, (len(shown) + 1) * config.claims))
                unfinished = rng.random() < config.unfinished
                shown += [self._asked(rng.choice(looks), rng, unfinished) for looks in rng.choice(self.pairs)]
            else:
                shown.append(self._painted(rng))
        asked = [one for _, questions, _ in shown for one in questions]
        held, ends = [names for _, _, names in shown], self.ends(asked)
        pixels = torch.stack([self._fitted(picture) for picture, _, _ in shown])
        pairs = torch.tensor(ranked, dtype=torch.long).view(-1, 2)
        return {"pixels": pixels, "ranked": pairs, **self.rows(asked, ends), **self._matches(asked, ends, held)}

    def _drawn(self, rng: random.Random) -> Shown:
        from ..atelier.draw import draw

        scene = drawn_scene(rng)
        picture = np.asarray(draw(scene, self.student.side).convert("RGB")).transpose(2, 0, 1)
        sighting = seen_in(scene)
        return picture, self._claims("orm", sighting, rng, self.config.claims), names_in(sighting)

    def _painted(self, rng: random.Random) -> Shown:
        looks = rng.choices(self.painted, [len(one) for one in self.painted])[0]
        look = looks[rng.randrange(len(looks))]
        return self._asked(look, rng, rng.random() < self.config.unfinished)

    def _asked(self, look: Look, rng: random.Random, unfinished: bool) -> Shown:
        """An image, finished or before, with the question whether it is (or may become) what its prompt says first. The
        end is one of its moments, and clear. One of which no earlier moment was kept will become what it is; whether
        it is clear is not asked, as the answer would always be yes."""
        names, more = names_in(look.sighting), self.config.claims - 1
        place = rng.randrange(len(look.pictures)) if unfinished else -1
        picture = self._shifted(look.pictures[place], rng)
        if not unfinished:
            reason = "" if look.own.holds or not self.config.reasons else look.reason
            own = Asked("orm", look.own, look.sure, reason)
            return picture, [own, *self._claims("orm", look.sighting, rng, more)], names
        own = Asked("potential", look.own, look.sure)
        clear = [Asked("clarity", Claim("", ((*look.clear, True)[place],), (0,)))] if look.moments else []
        return picture, [own, *clear, *self._claims("potential", look.sighting, rng, more - len(clear))], names

    def _shifted(self, picture: np.ndarray, rng: random.Random) -> np.ndarray:
        if rng.random() >= self.config.moved:
            return picture
        return moved(torch.from_numpy(np.array(picture))[None], *rng.choice(MOVES))[0].numpy()

    def _fitted(self, picture: np.ndarray) -> Tensor:
        """(3, S, S) uint8 of the side that the student sees."""
        pixels = torch.from_numpy(np.array(picture))
        if pixels.shape[-1] == self.student.side:
            return pixels
        wide = F.interpolate(pixels[None].float(), (self.student.side,) * 2, mode="bilinear", antialias=True)
        return wide[0].round().byte()

    def _claims(self, question: str, sighting: Sighting, rng: random.Random, count: int) -> list[Asked]:
        said = (claim(sighting, rng, rng.random() < 0.5, self.config.tasks) for _ in range(count))
        return [Asked(question, one) for one in said]

    def rows(self, asked: Sequence[Asked], ends: Sequence[Sequence[int]]) -> Batch:
        """What stands behind the pictures, as `QwenStudent.questions` has it, `last` being where the answer begins; the
        wanted verdicts (N, T), 1, 0 or UNASKED; how surely the answer is yes, `sure` (N,); and which tokens stand
        before one to tell, of a true claim (`said`, (N, T)) or of a reason (`why`, (N, T)). ends: see `ends`."""
        ids, wanted, said, why, last = [], [], [], [], []
        for one, (first, *parts) in zip(asked, ends, strict=True):
            tokens = self.student.behind(self.wording.conversation(one.question, one.said.text))
            end = len(tokens) - 1
            last.append(end)
            if one.reason:
                tokens += [self.no, *self.student.words.encode(f". {one.reason}{END}", add_special_tokens=False)]
            marks = [UNASKED] * len(tokens)
            for place, holds in zip((*parts[:-1], end), one.said.steps, strict=True):
                marks[place] = int(holds)
            tells = one.said.holds and one.question == "orm"
            ids.append(tokens)
            wanted.append(marks)
            said.append([int(tells and first <= place < parts[-1]) for place in range(len(tokens))])
            why.append([int(end < place < len(tokens) - 1) for place in range(len(tokens))])
        found = self.student.questions(ids, behind=True) | {"last": torch.tensor(last)}
        sure = torch.tensor([float(one.said.holds) if one.sure is None else one.sure for one in asked])
        found |= {"wanted": pad(wanted, UNASKED), "sure": sure}
        return found | {"said": pad(said, 0).bool(), "why": pad(why, 0).bool()}

    def ends(self, asked: Sequence[Asked]) -> list[list[int]]:
        """Of each question the places of tokens: before the prompt, and of the last word of each of its parts."""
        found = []
        for one in asked:
            before = self.wording.conversation(one.question, "{}")[0].text.partition("{}")[0]
            texts = [before + one.said.text[:cut] for cut in (0, *one.said.ends)]
            words = self.student.words
            found.append([len(words.encode(text.rstrip(), add_special_tokens=False)) - 1 for text in texts])
        return found

    def _matches(self, asked: Sequence[Asked], ends: Sequence[Sequence[int]], held: Sequence[Names]) -> Batch:
        """Where a part of a claim has been read, question and token (M, 2), which pictures hold it (M, B), and where
        in the question's own picture that is (M, 2), NaN if there is none of it, or several."""
        spots, holds, places = [], [], []
        each = len(asked) // len(held)
        for row, one in enumerate(asked):
            for end, named in zip(ends[row][1:], one.said.named, strict=False):
                own = held[row // each].get(named, [])
                spots.append((row, end))
                holds.append([float(named in names) for names in held])
                places.append(own[0] if len(own) == 1 else (math.nan, math.nan))
        return {"spots": torch.tensor(spots), "holds": torch.tensor(holds), "where": torch.tensor(places)}

    # Losses.

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Any]]:
        pictures: Held = self.student.shown(self.student.look(batch["pixels"]))
        keys: Held = []
        queries: list[Tensor] = []
        hidden = self.student.behind_pictures(batch, pictures, keys, queries)
        told, wanted, config = self.verdicts(hidden), batch["wanted"], self.config
        each = F.binary_cross_entropy_with_logits(told, (wanted == 1).float(), reduction="none")
        ends = torch.zeros_like(wanted, dtype=torch.bool)
        ends[torch.arange(len(ends), device=ends.device), batch["last"]] = True
        parts = (wanted != UNASKED) & ~ends
        match = _match(batch, self.picture_mask, pictures, keys, queries)
        about = {
            "verdict": self._answered(hidden[ends], batch["sure"]),
            "parts": each[parts].sum() / parts.sum().clamp(min=1),
        }
        about |= {"match": match, "where": self._where(batch, keys), "tell": self._told(batch, hidden, "said")}
        # Only the two words of each pair's verdicts count, not what else might have been said.
        better, worse = told[ends][batch["ranked"]].unbind(1)
        about |= {"rank": F.softplus(worse - better).sum() / max(1, len(better))}
        about |= {"reasons": self._told(batch, hidden, "why")}
        loss = torch.stack([getattr(config, name, 1.0) * value for name, value in about.items()]).sum()
        right = ((told > 0) == (wanted == 1))[ends].float().mean()
        return loss, {name: value.detach() for name, value in (about | {"right": right}).items()}

    def _answered(self, hidden: Tensor, sure: Tensor) -> Tensor:
        """Cross entropy of the answers' first words (N, D), among all words, so that one of the two comes first."""
        logs = self.student.model.lm_head(hidden).float().log_softmax(-1)
        return -(sure * logs[:, self.yes] + (1 - sure) * logs[:, self.no]).mean()

    def _told(self, batch: Batch, hidden: Tensor, which: str) -> Tensor:
        """Cross entropy of the words behind the tokens that are marked."""
        marked = batch[which]
        told = self.student.model.lm_head(hidden[marked])
        return cross_entropy(told, batch["ids"].roll(-1, 1)[marked]) if len(told) else told.sum()

    def _where(self, batch: Batch, keys: Held) -> Tensor:
        """Mean distance, in widths of the picture, along an axis."""
        row, place = batch["spots"].unbind(1)
        handed = keys[-1][1][row, :, place].flatten(1).float()  # (M, D): the values that the last layer attends to
        one = ~batch["where"][:, 0].isnan()
        told = self.model["where"](handed)[one]
        return (told - batch["where"][one]).abs().sum() / max(1, told.numel())

    @property
    def picture_mask(self) -> Tensor:
        """Which tokens of the opening are the picture's."""
        return torch.tensor([token == self.student.picture for token in self.student.opening])

    def verdicts(self, hidden: Tensor) -> Tensor:
        """By how much yes is likelier than no as the next word, in nats."""
        table = self.student.model.lm_head.weight
        return (hidden @ (table[self.yes] - table[self.no]).to(hidden.dtype)).float()


def _match(batch: Batch, shown: Tensor, pictures: Held, keys: Held, queries: list[Tensor]) -> Tensor:
    """Cross entropy of looking at a picture or not, for every part and every picture: right ones and wrong ones weigh
    alike. `shown` says which tokens of the opening are the picture's; the rest of it, and what of the question has been
    read, is where else a head may look."""
    row, place = batch["spots"].unbind(1)
    holds, losses = batch["holds"], []
    count, head = len(queries), 0
    layers = sorted({max(0, count // 2 - 1), count // 2})
    for layer in layers:
        asks = queries[layer][row, head, place].float() * queries[layer].shape[-1] ** -0.5  # (M, head)
        met = torch.einsum("md,bpd->mbp", asks, pictures[layer][0][:, head].float())
        own = torch.einsum("md,mtd->mt", asks, keys[layer][0][row, head].float())
        ahead = torch.arange(own.shape[1], device=own.device) > place[:, None]
        own = own.masked_fill(ahead, -torch.inf).logsumexp(-1)
        elsewhere = torch.logaddexp(met[..., ~shown].logsumexp(-1), own[:, None])
        each = F.binary_cross_entropy_with_logits(met[..., shown].logsumexp(-1) - elsewhere, holds, reduction="none")
        losses += [(each * some).sum() / some.sum().clamp(min=1) for some in (holds, 1 - holds)]
    return torch.stack(losses).sum() / len(layers)
