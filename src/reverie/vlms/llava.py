"""LLaVA-OneVision as one that looks at pictures and answers: the judge of "verify and reinforce" (arXiv 2501.13926).

The networks are those of transformers; their parts are called one by one, because the whole refuses a picture of one
view. Conversations are read in batches, padded on the left. A conversation that begins like one that was read before
goes on from its keys and values, so two questions about one picture cost one look and one long prefill.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from reverie.canvas import Work, draw_uniforms, pick
from reverie.models.llava_checkpoint import Llava
from reverie.vlms import IMAGE, Message, Messages, Reading, seeds_of
from reverie.vlms.llava_views import VIEWS, canvas_for, merge, prepare

PICTURE = -200
"""Stands in ids where a picture goes; no token has this id."""
SYSTEM = "You are a helpful assistant."


@dataclass(frozen=True)
class Memory:
    """What was read of one conversation."""

    ids: list[int]
    pictures: tuple[Image.Image, ...]
    layers: list[tuple[Tensor, Tensor]]
    """Keys and values of each layer, (heads, length, size)."""

    @property
    def length(self) -> int:
        return self.layers[0][0].shape[1]

    @property
    def nbytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)


class LlavaEyes:
    """A `VLM` and a `Reader` (see vlms/__init__.py) over a loaded LLaVA-OneVision."""

    def __init__(self, llava: Llava, *, view: str = "pad", batch: int = 8, work: Work | None = None):
        """view: how pictures are looked at, see llava_views; batch: so many conversations at once."""
        if view not in VIEWS:
            raise ValueError(f"view={view!r}: must be one of {', '.join(VIEWS)}.")
        self.model, self.tokenizer, self.filters = llava.model, llava.tokenizer, llava.filters
        self.pinpoints, self.view, self.batch, self.work = llava.pinpoints, view, batch, work or Work()
        self.reserved = sorted({IMAGE, *self.tokenizer.get_added_vocab()}, key=len, reverse=True)
        ends = {self.tokenizer.eos_token, "<|im_end|>", "<|endoftext|>"}
        self.ends = {self.tokenizer.convert_tokens_to_ids(end) for end in ends if end}

    # What is asked.

    def ids(self, messages: Messages) -> list[int]:
        """The conversation as token ids, `PICTURE` for each picture. Each piece of text between two is encoded by
        itself, as the authors do."""
        if messages and messages[0].role != "system":
            messages = [Message("system", SYSTEM), *messages]
        turns = [f"<|im_start|>{message.role}\n{self._plain(message)}<|im_end|>\n" for message in messages]
        pieces = "".join([*turns, "<|im_start|>assistant\n"]).split(IMAGE)
        ids = self.encode(pieces[0])
        for piece in pieces[1:]:
            ids += [PICTURE, *self.encode(piece)]
        return ids

    def _plain(self, message: Message) -> str:
        """The text with special tokens made mere text, and our own marks where the pictures go."""
        mark = "\0picture\0"
        text = message.with_places(mark)
        while found := next((word for word in self.reserved if word in text), None):
            text = text.replace(found, f"{found[0]} {found[1:]}")
        return text.replace(mark, IMAGE)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False)

    def first_ids(self, word: str) -> set[int]:
        """Only spellings of a single token: the first piece of a longer one may begin anything."""
        spellings = [space + form for space in ("", " ") for form in (word, word.capitalize(), word.upper())]
        found = [self.encode(spelling) for spelling in spellings]
        return {ids[0] for ids in found if len(ids) == 1} or {ids[0] for ids in found}

    def token(self, index: int) -> str:
        return self.tokenizer.convert_ids_to_tokens(index)

    # What is seen.

    def pixels(self, picture: Image.Image) -> Tensor:
        """(views, 3, side, side) float32."""
        return prepare(picture, self.view, self.model.config.vision_config.image_size, self.pinpoints)

    @torch.no_grad()
    def look(self, pictures: Sequence[Image.Image]) -> list[Tensor]:
        """What stands in a conversation for each picture: (T, D)."""
        self.work.vision_encodes += len(pictures)
        return self.seen(pictures)

    def seen(self, pictures: Sequence[Image.Image]) -> list[Tensor]:
        """The same, differentiable."""
        views = [self.pixels(picture) for picture in pictures]
        tower, inner = self.model.model.vision_tower, self.model.model
        seen = tower(torch.cat(views).to(self.model.device, self.model.dtype), output_hidden_states=True)
        # The output of the last stored block; `last_hidden_state` has passed a norm that the authors leave out.
        features = inner.multi_modal_projector(seen.hidden_states[-1]).split(list(map(len, views)))
        side = self.model.config.vision_config.image_size
        merged = []
        for picture, found in zip(pictures, features, strict=True):
            size = canvas_for(picture.size, self.pinpoints) if self.view != "pad" else None
            grid = (size[0] // side, size[1] // side) if size else None
            merged.append(merge(found, inner.image_newline, picture.size, grid))
        return merged

    # What is answered.

    @torch.no_grad()
    def read(
        self, conversations: Sequence[Messages], before: Sequence[Reading | None] = (), remember: bool = False
    ) -> list[Reading]:
        earlier: list[Reading | None] = list(before) or [None] * len(conversations)
        found: list[Reading] = []
        for start in range(0, len(conversations), self.batch):
            group = conversations[start : start + self.batch]
            memories = [reading.memory if reading else None for reading in earlier[start : start + self.batch]]
            batch = self._enter(group, memories)
            kept = batch.memories() if remember else [None] * len(group)
            logits = self.logits(batch.hidden[:, -1]).float().cpu()
            found += [Reading(row, memory) for row, memory in zip(logits, kept, strict=True)]
        return found

    def yes_probability(self, messages: Messages) -> float:
        (reading,) = self.read([messages])
        yes, no = self.first_ids("yes"), self.first_ids("no")
        return torch.stack([reading.logits[sorted(ids)].logsumexp(0) for ids in (yes, no)]).softmax(0)[0].item()

    @torch.no_grad()
    def features(self, messages: Messages) -> Tensor:
        return self._enter([messages], [None]).hidden[0]

    def write(
        self,
        messages: Messages,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        on_text: Callable[[str], None] | None = None,
    ) -> str:
        ids = self.answer([messages], max_new_tokens, temperature, [seed], on_text)[0]
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def write_batch(
        self,
        conversations: Sequence[Messages],
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        seeds = seeds_of(conversations, seeds)
        texts: list[str] = []
        for start in range(0, len(conversations), self.batch):
            part = slice(start, start + self.batch)
            answers = self.answer(conversations[part], max_new_tokens, temperature, seeds[part])
            texts += self.tokenizer.batch_decode(answers, skip_special_tokens=True)
        return texts

    @torch.no_grad()
    def answer(
        self,
        conversations: Sequence[Messages],
        limit: int,
        temperature: float,
        seeds: Sequence[int],
        on_text: Callable[[str], None] | None = None,
    ) -> list[list[int]]:
        """Ids of the answers, with the end-of-turn token where it came. `on_text` hears the first of them."""
        batch = self._enter(conversations, [None] * len(conversations))
        uniforms = draw_uniforms(seeds, limit).to(self.model.device)
        written: list[list[int]] = [[] for _ in conversations]
        hidden, told = batch.hidden[:, -1], 0
        for step in range(limit):
            ids = pick(self.logits(hidden).float(), uniforms[:, step], temperature)
            for answer, index in zip(written, ids.tolist(), strict=True):
                if not answer or answer[-1] not in self.ends:
                    answer.append(index)
            text = self.tokenizer.decode(written[0], skip_special_tokens=True) if on_text else ""
            if on_text and len(text) > told and not text.endswith("\ufffd"):
                on_text(text[told:])
                told = len(text)
            if all(answer[-1] in self.ends for answer in written) or step == limit - 1:
                break
            self.work.decoded += len(conversations)
            hidden = batch.feed(self, self._embed_text(ids)[:, None])
        return written

    def spliced(self, ids: Sequence[int], seen: Iterator[Tensor]) -> Tensor:
        """(T, D): what the language model reads of a conversation, the pictures taken from `seen` one after another."""
        spots = torch.tensor(ids, device=self.model.device)
        text = self._embed_text(spots.clamp(min=0))
        parts, last = [], 0
        for place in (spots == PICTURE).nonzero().squeeze(1).tolist():
            parts += [text[last:place], next(seen)]
            last = place + 1
        return torch.cat([*parts, text[last:]])

    def logits(self, hidden: Tensor) -> Tensor:
        """Over the tokenizer's words only: rows beyond them were never trained."""
        return self.model.lm_head(hidden)[:, : len(self.tokenizer)]

    def _embed_text(self, ids: Tensor) -> Tensor:
        return self.model.get_input_embeddings()(ids)

    def _enter(self, conversations: Sequence[Messages], memories: Sequence[Memory | None]) -> "Batch":
        """Reads conversations, each behind what is remembered of it."""
        asked = [self.ids(messages) for messages in conversations]
        pictures = [tuple(p for message in messages for p in message.images) for messages in conversations]
        kept = [m if m and _extends(i, p, m) else None for i, p, m in zip(asked, pictures, memories, strict=True)]
        new = [ids[len(memory.ids) :] if memory else ids for ids, memory in zip(asked, kept, strict=True)]
        unseen = [p for shown, memory in zip(pictures, kept, strict=True) if memory is None for p in shown]
        seen = iter(self.look(unseen) if unseen else ())
        rows = [self.spliced(ids, seen) for ids in new]
        self.work.prefilled += sum(map(len, rows))
        return Batch.run(self, rows, kept, asked, pictures)


def _extends(ids: list[int], pictures: tuple[Image.Image, ...], memory: Memory) -> bool:
    """Whether a conversation begins with all of a remembered one: the same ids, the very same pictures."""
    length = len(memory.ids)
    alike = len(pictures) == len(memory.pictures) and all(
        a is b for a, b in zip(pictures, memory.pictures, strict=True)
    )
    return alike and length < len(ids) and ids[:length] == memory.ids


@dataclass
class Batch:
    """Conversations in the model: hidden states of what was just read, and the cache to go on with."""

    hidden: Tensor
    """(N, T, D), padded on the left."""
    cache: object
    mask: Tensor
    """(N, P + T): 1 where the cache holds something."""
    lengths: Tensor
    """(N,) how much that is."""
    asked: list[list[int]]
    pictures: list[tuple[Image.Image, ...]]

    @classmethod
    def run(cls, eyes: LlavaEyes, rows: list[Tensor], kept: Sequence[Memory | None], asked, pictures) -> "Batch":
        from transformers import DynamicCache

        device = rows[0].device
        past = torch.tensor([memory.length if memory else 0 for memory in kept], device=device)
        count = torch.tensor([len(row) for row in rows], device=device)
        behind, ahead = int(past.max()), int(count.max())
        embeds = torch.stack([F.pad(row, (0, 0, ahead - len(row), 0)) for row in rows])
        mask = torch.cat((_ones_at_the_end(past, behind), _ones_at_the_end(count, ahead)), 1)
        cache = DynamicCache(config=eyes.model.config.text_config)
        if behind:
            like = next(memory for memory in kept if memory)
            for layer, (keys, _) in enumerate(like.layers):
                blank = keys[:, :0]
                pairs = [memory.layers[layer] if memory else (blank, blank) for memory in kept]
                both = [torch.stack([F.pad(p[i], (0, 0, behind - p[i].shape[1], 0)) for p in pairs]) for i in (0, 1)]
                cache.update(both[0], both[1], layer)
        positions = (past[:, None] + torch.arange(ahead, device=device) - (ahead - count)[:, None]).clamp(min=0)
        hidden = _through(eyes, embeds, mask, positions, cache)
        return cls(hidden, cache, mask, past + count, asked, pictures)

    def feed(self, eyes: LlavaEyes, embeds: Tensor) -> Tensor:
        """One more vector for each conversation, (N, 1, D); hidden states (N, D)."""
        self.mask = F.pad(self.mask, (0, 1), value=1)
        hidden = _through(eyes, embeds, self.mask, self.lengths[:, None], self.cache)
        self.lengths = self.lengths + 1
        return hidden[:, 0]

    def memories(self) -> list[Memory]:
        held = [(layer.keys, layer.values) for layer in self.cache.layers]  # type: ignore[attr-defined]
        found = []
        for row, (ids, shown) in enumerate(zip(self.asked, self.pictures, strict=True)):
            here = self.mask[row].nonzero().squeeze(1)
            found.append(Memory(ids, shown, [(keys[row][:, here], values[row][:, here]) for keys, values in held]))
        return found


def _through(eyes: LlavaEyes, embeds: Tensor, mask: Tensor, positions: Tensor, cache) -> Tensor:
    return eyes.model.model.language_model(
        inputs_embeds=embeds, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
    ).last_hidden_state


def _ones_at_the_end(counts: Tensor, width: int) -> Tensor:
    """(N,) to (N, width): so many ones behind zeros."""
    return (torch.arange(width, device=counts.device) >= width - counts[:, None]).long()
