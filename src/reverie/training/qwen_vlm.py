"""Training the small Qwen2.5-VL of atelier-qwen: it reads prompts for a painter, sees pictures, and knows facts.

Four kinds of rows:

    ask     chats in words alone: what a riddle means, plain words for plain prompts, and for plain prompts the format
            of Think-then-Generate (arXiv 2601.10332). A riddle is never rewritten: that is left to fine-tuning
    look    chats about a picture: questions, captions, what an event does to what is seen
    paint   a caption under the template that the pipelines of Qwen-Image put it in
    edit    a picture and a plain instruction under the template of Qwen-Image's editor

What a painter reads are the last states of the last two, of which it sees neither the beginning nor any layer before.
A language model of this size would keep in them what it needs to guess the next token, and little else. So a small
reader, left out of the checkpoint, writes from these states alone what is to be seen. Riddles never stand under these
templates.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..atelier.draw import draw
from ..atelier.edits import edit
from ..atelier.knowledge import facts as known_facts
from ..atelier.knowledge import riddle, wordings
from ..atelier.language import canonical, say
from ..atelier.lessons import lesson, spelled_out
from ..atelier.sample import compose, random_demand
from ..thinkers import request
from .captions import pictured, worded
from .cross_entropy import cross_entropy
from .janus import in_working_type, pad, stack
from .qwen_build import DROPPED, QUESTIONS, SYSTEM, QwenVlmSizes, templates
from .qwen_edits import plain_change, plain_edit
from .vlm_build import END, PICTURE, USER, VISION_END, VISION_START
from .vlm_facts import GROUPS, facts
from .vlm_forward import patches_of, places_of, quicken_qwen, read, see

Chat = tuple[str, str, Any]
"""Question, answer, and the picture that stands before the question, if any."""


@dataclass
class QwenVlmTraining:
    """How many rows of each kind are in a step, and how many different ones there are of each.

    asked: shares of the kinds of questions without a picture; reader: layers of the reader; facts_weight: of the heads
    that read kinds and looks from a picture's tokens (see `vlm_facts.py`).
    """

    ask: int = 64
    look: int = 24
    paint: int = 48
    edit: int = 16
    pool: int = 20000
    pictures: int = 6000
    reader: int = 2
    facts_weight: float = 0.5
    asked: dict[str, float] = field(default_factory=lambda: {"fact": 45, "meaning": 25, "plainly": 15, "t2g": 15})


class Reader(nn.Module):
    """Writes a text from states (B, S, D): causal layers with attention to these states."""

    def __init__(self, symbols: int, width: int, layers: int, heads: int):
        super().__init__()
        self.embed = nn.Embedding(symbols, width)
        self.places = nn.Embedding(256, width)
        nn.init.normal_(self.embed.weight, std=0.02)
        nn.init.normal_(self.places.weight, std=0.02)
        layer = nn.TransformerDecoderLayer(width, heads, 2 * width, 0.0, F.gelu, batch_first=True, norm_first=True)
        self.layers = nn.TransformerDecoder(layer, layers, nn.LayerNorm(width))
        self.head = nn.Linear(width, symbols)

    def forward(self, ids: Tensor, states: Tensor, real: Tensor) -> Tensor:
        """Logits (B, T, V) behind each of ids (B, T); real (B, S): which states are no padding."""
        length = ids.shape[1]
        x = self.embed(ids) + self.places.weight[:length]
        causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).triu(1)
        return self.head(self.layers(in_working_type(x), states, causal, memory_key_padding_mask=~real))


class QwenVlmTask:
    """`training.loop.Task` of the small Qwen2.5-VL."""

    def __init__(self, vlm: Any, words: Any, sizes: QwenVlmSizes, mix: QwenVlmTraining, seed: int = 0):
        self.vlm, self.words, self.sizes, self.mix, self.seed = quicken_qwen(vlm), words, sizes, mix, seed
        self.picture = words.convert_tokens_to_ids(PICTURE)
        self.span = VISION_START + PICTURE * sizes.tokens + VISION_END
        self.templates = templates()
        reader = Reader(len(words), sizes.width, mix.reader, sizes.heads)
        heads = nn.Linear(sizes.width, sum(map(len, GROUPS.values())))
        self.model = nn.ModuleDict({"vlm": vlm, "reader": reader, "heads": heads}).train()
        self.made: dict[tuple[str, int], Any] = {}

    # Data. A row is made from its kind and number and kept: words are not cut into tokens, nor pictures drawn, twice.

    def batch(self, step: int) -> dict[str, dict[str, Tensor]]:
        rng, found = random.Random(f"{self.seed}/{step}"), {}
        for kind in ("ask", "look", "paint", "edit"):
            count = getattr(self.mix, kind)
            most = self.mix.pool if kind in ("ask", "paint") else self.mix.pictures
            rows = [self._made(kind, rng.randrange(most)) for _ in range(count)]
            if rows:
                found[kind] = self._stacked(kind, rows)
        return found

    def _made(self, kind: str, number: int) -> dict[str, Any]:
        if (kind, number) not in self.made:
            rng = random.Random(f"{self.seed}/{kind} {number}")
            self.made[kind, number] = getattr(self, f"_{kind}")(rng)
        return self.made[kind, number]

    def _ask(self, rng: random.Random) -> dict[str, Any]:
        return self._chat(ask_row(rng, self.mix.asked))

    def _look(self, rng: random.Random) -> dict[str, Any]:
        scene, chat = look_row(rng)
        drawn = draw(scene, self.sizes.side)
        return self._chat((*chat, drawn)) | {"pixels": drawn, "facts": facts(scene)}

    def _paint(self, rng: random.Random) -> dict[str, Any]:
        demand, _ = pictured(rng, 0.15, 0.1)
        return self._read(self.templates["paint"].format(worded(demand, rng, 0.1, 0.05)), canonical(demand))

    def _edit(self, rng: random.Random) -> dict[str, Any]:
        before, words, after = plain_change(rng)
        moves = words.startswith(("Move", "Swap", "Put the"))
        found = self._read(self.templates["edit"].format(words), words if moves else plain_edit(before, after))
        return found | {"pixels": draw(before, self.sizes.side), "facts": facts(before)}

    def _chat(self, chat: Chat) -> dict[str, Any]:
        """ids of a conversation of one question and one answer, which of them carry the loss, and their places."""
        question, answer, picture = chat
        asked = self._ids(chat_text(question, self.span if picture else ""))
        told = self._ids(answer + END)
        ids = asked + told
        carries = [0] * (len(asked) - 1) + [1] * len(told) + [0]
        return {"ids": ids, "carries": carries, "places": places_of(ids, self.picture, int(self.sizes.tokens**0.5))}

    def _read(self, prompt: str, wanted: str) -> dict[str, Any]:
        """ids of a prompt in its template, and of what the reader is to write. The pipelines give every token, those of
        a picture too, the next place in the row."""
        ids = self._ids(prompt.replace(VISION_START + PICTURE + VISION_END, self.span))
        return {"ids": ids, "wanted": self._ids(USER + wanted + END), "places": [(n, n, n) for n in range(len(ids))]}

    def _ids(self, text: str) -> list[int]:
        return self.words(text, add_special_tokens=False).input_ids

    def _stacked(self, kind: str, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        filler = self.words.pad_token_id
        axes = [pad([[place[axis] for place in row["places"]] for row in rows], 0) for axis in range(3)]
        found = {"ids": pad([row["ids"] for row in rows], filler), "places": torch.stack(axes, 1)}
        if kind in ("ask", "look"):
            found["carries"] = pad([row["carries"] for row in rows], 0).bool()
        else:
            found["wanted"] = pad([row["wanted"] for row in rows], -1)
            found["length"] = torch.tensor([len(row["ids"]) for row in rows])
        if kind in ("look", "edit"):
            found["pixels"] = stack([row["pixels"] for row in rows])
            found["facts"] = torch.tensor([row["facts"] for row in rows])
        return found

    # Losses.

    def loss(self, batch: dict[str, dict[str, Tensor]]) -> tuple[Tensor, dict[str, Any]]:
        losses: dict[str, Tensor] = {}
        for kind, rows in batch.items():
            seen = None
            if "pixels" in rows:
                seen = see(self.vlm.model.visual, patches_of(rows["pixels"], self.sizes.patch))
                losses[f"{kind} facts"] = self.mix.facts_weight * self._facts_loss(seen, rows["facts"])
            hidden = states_of(self.vlm, self.picture, rows, seen)
            if kind in ("ask", "look"):
                carries = rows["carries"]
                losses[kind] = nats(self.vlm.lm_head(hidden[carries]), rows["ids"].roll(-1, 1)[carries])
            else:
                losses[kind] = self._reader_loss(hidden[:, DROPPED[kind] :], rows, DROPPED[kind])
        return torch.stack(list(losses.values())).sum(), {name: loss.detach() for name, loss in losses.items()}

    def _reader_loss(self, states: Tensor, rows: dict[str, Tensor], dropped: int) -> Tensor:
        real = torch.arange(states.shape[1], device=states.device) < (rows["length"] - dropped)[:, None]
        given, wanted = rows["wanted"][:, :-1], rows["wanted"][:, 1:]
        told = self.model["reader"](given.clamp(min=0), states, real)
        return nats(told[wanted >= 0], wanted[wanted >= 0])

    def _facts_loss(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        """Cross-entropy of every group of names; a group with several right names wants them in equal shares."""
        told = self.model["heads"](tokens.mean(1)).float()
        sizes = [len(names) for names in GROUPS.values()]
        pairs = zip(told.split(sizes, 1), wanted.split(sizes, 1), strict=True)
        return torch.stack([F.cross_entropy(logits, right) for logits, right in pairs]).sum()


def states_of(vlm: Any, picture: int, rows: dict[str, Tensor], seen: Tensor | None) -> Tensor:
    """The last states (B, T, D) of rows with `ids` (B, T) and `places` (B, 3, T), padded on the right; seen: tokens of
    the rows' pictures (B, P, D)."""
    ids = rows["ids"]
    embeds = vlm.model.language_model.embed_tokens(ids)
    if seen is not None:
        embeds = embeds.masked_scatter((ids == picture)[..., None], seen.to(embeds.dtype))
    return read(vlm, in_working_type(embeds), rows["places"].transpose(0, 1))


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits (N, V)."""
    return F.cross_entropy(logits.float(), targets) if logits.is_cuda else cross_entropy(logits, targets)


def chat_text(question: str, span: str = "") -> str:
    """A conversation up to the point where the answer begins."""
    return f"{USER}system\n{SYSTEM}{END}\n{USER}user\n{span}{question}{END}\n{USER}assistant\n"


def ask_row(rng: random.Random, shares: dict[str, float]) -> Chat:
    """A question without a picture."""
    kind = rng.choices(list(shares), list(shares.values()))[0]
    if kind == "fact":
        fact = rng.choice(known_facts())
        return QUESTIONS[0].format(rng.choice(wordings(fact, "train"))), fact.thought, None
    if kind == "meaning":
        asked = riddle(rng, "train")
        return QUESTIONS[1].format(asked.prompt), asked.thought, None
    demand = random_demand(rng)
    prompt = say(demand, rng, rng.choice(("terse", "plain", "plain")), split="train")
    if kind == "plainly":
        return QUESTIONS[2].format(prompt), canonical(demand), None
    return request("t2g", prompt), t2g_answer(spelled_out(demand), canonical(demand)), None


def t2g_answer(thought: str, rewritten: str) -> str:
    """What Think-then-Generate has a language model answer."""
    return f"{thought}\n\nRevised Prompt:\n{rewritten}"


def look_row(rng: random.Random) -> tuple[Any, tuple[str, str]]:
    """A scene, and a question about it with its answer."""
    share = rng.random()
    if share < 0.4:
        found = lesson(rng, "question")
        assert found.scene is not None
        return found.scene, (found.question, found.answer)
    if share < 0.6:
        one = edit(rng)
        return one.before, (f"What happens then? {one.instruction}", one.reasoning)
    if share < 0.7:
        before, words, after = plain_change(rng)
        return before, (words, plain_edit(before, after))
    if share < 0.85:
        found = lesson(rng, "caption")
        assert found.scene is not None
        return found.scene, (found.question, found.answer)
    demand = random_demand(rng)
    return compose(demand, rng, loose=True), (QUESTIONS[3], canonical(demand))
