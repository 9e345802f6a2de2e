"""A Qwen2-VL that learns to judge, and a quick way to hear what it says about thousands of pictures.

For models whose pictures all enter with one size and whose queries have keys of their own, such as the Atelier's
(`vlm_build.py`): a batch is then one tensor (`vlm_forward.py`). It is asked as `vlms/transformers.py` asks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..canvas import Work
from ..judges import Answer
from ..judges.manner import Manner, favoured
from ..judges.moved import FINISHED, MOVES, moved, together
from ..judges.vlm import VLMJudge, Wording
from .cross_entropy import cross_entropy
from .janus import in_working_type, lengths, pad
from .vlm_build import END, PICTURE, VISION_END, VISION_START
from .vlm_forward import Held, patches_of, places_of, quicken_qwen, read, see

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..judges import View
    from ..vlms import Message
    from ..vlms.transformers import TransformersVLM
    from .judge import Example


class QwenStudent:
    """A `Student` (see judge.py). ValueError for a Qwen2-VL of another kind than said above."""

    def __init__(self, vlm: TransformersVLM, vision: bool = True):
        eyes, text = vlm.processor.image_processor, vlm.model.config.text_config
        area = eyes.size["shortest_edge"]
        self.side, self.patch = round(area**0.5), eyes.patch_size
        tiles = self.side / (2 * self.patch)
        one_size = eyes.size["longest_edge"] == area == self.side**2 and tiles == int(tiles)
        if vlm.model.config.model_type != "qwen2_vl" or not one_size:
            raise ValueError("a judge of this family learns only from pictures of one size, as the Atelier's Qwen2-VL.")
        if text.num_key_value_heads != text.num_attention_heads:
            raise ValueError("a Qwen2-VL with shared keys cannot be trained as a judge here; give the Atelier's.")
        self.vlm, self.words, self.grid = vlm, vlm.tokenizer, int(tiles)
        self.model = quicken_qwen(vlm.model).train()
        self.model.model.visual.requires_grad_(vision)
        self.picture = self.words.convert_tokens_to_ids(PICTURE)
        self.span = VISION_START + PICTURE * self.grid**2 + VISION_END
        self.opening = self.words.encode(f"<|im_start|>user\n{self.span}", add_special_tokens=False)

    def asked(self, messages: Sequence[Message], shown: int = 0) -> list[int]:
        """Ids of a conversation, up to where the assistant answers. shown: pictures of its first turn that are not at
        hand."""
        counts = [len(one.images) for one in messages]
        counts[0] += shown
        turns = [
            f"<|im_start|>{one.role}\n{self.span * count}{one.text}{END}\n"
            for one, count in zip(messages, counts, strict=True)
        ]
        return self.words.encode("".join(turns) + "<|im_start|>assistant\n", add_special_tokens=False)

    def behind(self, messages: Sequence[Message]) -> list[int]:
        """The same, of a conversation about one picture, without what stands up to the picture's end (`opening`)."""
        return self.asked(messages, 1)[len(self.opening) :]

    def shown(self, tokens: Tensor) -> Held:
        """Keys and values of the opening with each of the pictures, whose tokens these are (N, tokens, D)."""
        ids = torch.tensor([self.opening] * len(tokens), device=tokens.device)
        embeds = self.model.model.language_model.embed_tokens(ids)
        embeds = embeds.masked_scatter((ids == self.picture)[..., None], tokens.to(embeds.dtype))
        places = torch.tensor(places_of(self.opening, self.picture, self.grid), device=tokens.device).T
        held: Held = []
        read(self.model, in_working_type(embeds), places[:, None].expand(-1, len(ids), -1), kept=held)
        return held

    def pixels(self, pictures: Sequence[Image]) -> Tensor:
        """(N, 3, side, side) uint8."""
        fitted = [p if p.size == (self.side, self.side) else p.resize((self.side, self.side), 3) for p in pictures]
        found = torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in fitted]))
        return found.permute(0, 3, 1, 2).contiguous()

    def rows(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        asked = [self.asked(one.messages) for one in examples]
        answers = [self.words.encode(one.answer + END, add_special_tokens=False) for one in examples]
        found = self.questions([[*a, *b] for a, b in zip(asked, answers, strict=True)])
        place = torch.arange(found["ids"].shape[1])
        ends = lengths(asked)[:, None] - 1
        carries = (place >= ends) & (place < ends + lengths(answers)[:, None])
        pictures = [picture for one in examples for message in one.messages for picture in message.images]
        return found | {"carries": carries, "pixels": self.pixels(pictures)}

    def questions(self, ids: Sequence[list[int]], behind: bool = False) -> dict[str, Tensor]:
        """Conversations as rows: ids (B, T) padded on the right, places (B, 3, T), last (B,). behind: they are what
        stands behind the opening."""
        before = self.opening if behind else []
        places = [places_of([*before, *row], self.picture, self.grid)[len(before) :] for row in ids]
        axes = [pad([[place[axis] for place in row] for row in places], 0) for axis in range(3)]
        filled = pad(ids, self.words.pad_token_id)
        return {"ids": filled, "places": torch.stack(axes, 1), "last": lengths(ids) - 1}

    def hidden(self, rows: dict[str, Tensor], tokens: Tensor) -> Tensor:
        """(B, T, D); `tokens` are those of the pictures, in order."""
        ids = rows["ids"]
        embeds = self.model.model.language_model.embed_tokens(ids)
        embeds = embeds.masked_scatter((ids == self.picture)[..., None], tokens.to(embeds.dtype))
        return read(self.model, in_working_type(embeds), rows["places"].transpose(0, 1))

    def loss(self, rows: dict[str, Tensor]) -> Tensor:
        hidden = self.hidden(rows, self.look(rows["pixels"]))
        carries = rows["carries"]
        return cross_entropy(self.model.lm_head(hidden[carries]), rows["ids"].roll(-1, 1)[carries])

    def look(self, pixels: Tensor) -> Tensor:
        """Pictures (N, 3, S, S) uint8 to their tokens (N, tokens, D)."""
        return see(self.model.model.visual, patches_of(pixels, self.patch))

    def behind_pictures(
        self, rows: dict[str, Tensor], held: Held, kept: Held | None = None, queries: list[Tensor] | None = None
    ) -> Tensor:
        """(B, T, D) of rows that stand behind the pictures that are held (`shown`); kept, queries: see
        `vlm_forward.read`."""
        embeds = self.model.model.language_model.embed_tokens(rows["ids"])
        return read(self.model, in_working_type(embeds), rows["places"].transpose(0, 1), held, kept, queries)

    @torch.no_grad()
    def chances(self, rows: dict[str, Tensor], held: Held) -> Tensor:
        """(B, 2): probabilities that the answer begins with yes and with no, over the whole vocabulary. rows: of
        `questions`, behind the pictures that are held."""
        hidden = self.behind_pictures(rows, held)
        last = hidden[torch.arange(len(hidden), device=hidden.device), rows["last"]]
        told = self.model.lm_head(last).float().softmax(-1)
        yes, no = self.vlm.first_ids("yes"), self.vlm.first_ids("no")
        return torch.stack([told[:, sorted(ids)].sum(1) for ids in (yes - no, no - yes)], 1)


class QuickJudge(VLMJudge):
    """The same judge, asked about many views in one pass."""

    def __init__(
        self,
        student: QwenStudent,
        wording: Wording,
        name: str,
        work: Work | None = None,
        manner: Manner | None = None,
    ):
        super().__init__(student.vlm, wording, name, False, work or Work(), manner or Manner(reasons=False))
        self.student = student

    @classmethod
    def load(cls, name: str, device: str) -> QuickJudge:
        """By name or folder. A model that nobody taught to judge is asked in the words of the Atelier."""
        from ..judges.load import manner_of
        from ..models.registry import resolve
        from ..vlms.transformers import TransformersVLM

        source = resolve(name, "judge")
        if source.family != "chat" or source.folder is None:
            raise ValueError(f"{name} is no Qwen2-VL, and only such judges are asked in one pass.")
        student = QwenStudent(TransformersVLM.load(source.folder, device=device))
        student.model.eval()
        wording = Wording.of("atelier" if source.judge == "instruct" else source.judge)
        return cls(student, wording, name, manner=manner_of(source))

    def ask(self, question: str, views: Sequence[View]) -> list[Answer]:
        if not views:
            return []
        pixels = self.student.pixels([view.picture for view in views]).to(self.student.vlm.model.device)
        told = self.told((question,), [view.prompt for view in views], pixels)[question]
        return [answer(*both) for both in told.tolist()]

    def told(self, questions: Sequence[str], prompts: Sequence[str], pixels: Tensor) -> dict[str, Tensor]:
        """(B, 2) of yes and no to each question about pictures (B, 3, S, S) uint8, finished ones seen from all places
        (judges/moved.py); as leniently or strictly as it is asked."""
        held, manner = self.read(pixels), self.manner
        elsewhere = [self.read(moved(pixels, *move)) for move in MOVES[: manner.moves] if {*questions} & {*FINISHED}]
        places = {one: [held, *(elsewhere if one in FINISHED else ())] for one in questions}
        told = {
            one: together(torch.stack([self.chances(one, prompts, seen) for seen in from_each]))
            for one, from_each in places.items()
        }
        return {one: favoured(both, manner.favours(one)) for one, both in told.items()}

    @torch.no_grad()
    def read(self, pixels: Tensor) -> Held:
        """What all questions about pictures (B, 3, S, S) uint8 have in common, read once."""
        self.work.vision_encodes += len(pixels)
        side = self.student.side
        if pixels.shape[-1] != side:
            wide = F.interpolate(pixels.float(), (side, side), mode="bicubic", antialias=True)
            pixels = wide.clamp(0, 255).round().byte()
        self.work.prefilled += len(pixels) * len(self.student.opening)
        return self.student.shown(self.student.look(pixels))

    def chances(self, question: str, prompts: Sequence[str], held: Held) -> Tensor:
        """(B, 2): of yes and no, about pictures that were read already."""
        ids = [self.student.behind(self.wording.conversation(question, prompt)) for prompt in prompts]
        rows = {name: tensor.to(held[0][0].device) for name, tensor in self.student.questions(ids, behind=True).items()}
        self.work.prefilled += sum(map(len, ids))
        return self.student.chances(rows, held)


def answer(yes: float, no: float) -> Answer:
    return Answer(yes, no, "yes" if yes >= no else "no")


def save_judge(student: QwenStudent, folder: Any, wording: Any) -> None:
    """The checkpoint in transformers' layout, with the wording in which it is to be asked."""
    from .vlm_build import save_vlm

    student.model.config.reverie = {"judge": wording}
    save_vlm(student.model, student.vlm.processor, folder)
