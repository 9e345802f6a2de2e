"""The understanding side of Janus: it looks at pictures through its vision tower and answers in words.

The procedure is the authors' (deepseek-ai/Janus, inference.py). Each conversation enters alone and in chunks of fixed
size, and answers are written in blocks of fixed size, so no answer depends on what else was asked at the same time.
"""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from reverie.canvas import Work, draw_uniforms, pick
from reverie.generators.prefill import Entry, prefill
from reverie.models.cores import shares, side_by_side
from reverie.models.janus import Janus
from reverie.models.janus_text import PLACEHOLDER, SYSTEM, ImageRules, JanusTokenizer
from reverie.models.llama import KVCache
from reverie.models.rows import padded_rows, round_up
from reverie.vlms import Messages, Reading, seeds_of
from reverie.vlms.janus_guesses import Answer, Followers, write_by_guesses

# How often a loop that waits for the end of all answers looks whether it has come; looking waits for the device.
LOOK_EVERY = 8


class JanusEyes:
    """A `VLM`, a `Reader` and `Brief` (see vlms/__init__.py), over a loaded Janus."""

    filters = (0, 1.0)

    def __init__(
        self,
        model: Janus,
        tokenizer: JanusTokenizer,
        *,
        rows: int = 32,
        chunk: int = 64,
        work: Work | None = None,
        remember: int = 64,
        together: int = 64,
    ):
        """rows, chunk: sizes of the blocks in which tokens are computed; others may round differently.
        work: the account to write on, when a run shares one with its painter.
        remember: the features of so many pictures are kept for the next question about them.
        together: pictures that an accelerator looks at in one batch; a CPU looks at one after the other."""
        self.model, self.tokenizer = model, tokenizer
        self.remember, self._seen, self.followers = remember, dict[bytes, Tensor](), Followers()
        self.rows, self.chunk, self.work, self.together = rows, chunk, work or Work(), together

    def write(
        self,
        messages: Messages,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        on_text: Callable[[str], None] | None = None,
    ) -> str:
        on_ids = _teller(self.tokenizer, on_text) if on_text else None
        return self.text(self._answers([messages], max_new_tokens, temperature, [seed], on_ids)[0])

    def write_batch(
        self,
        conversations: Sequence[Messages],
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        seeds = seeds_of(conversations, seeds)
        answers = self._answers(conversations, max_new_tokens, temperature, seeds) if conversations else []
        return [self.text(ids) for ids in answers]

    def write_until(
        self, conversations: Sequence[Messages], max_new_tokens: int, enough: Sequence[Callable[[str], bool] | None]
    ) -> list[str]:
        seeds = seeds_of(conversations, None)
        return [self.text(ids) for ids in self._answers(conversations, max_new_tokens, 0.0, seeds, enough=enough)]

    def write_ids(
        self, conversations: Sequence[Messages], max_new_tokens: int, temperature: float, seeds: Sequence[int]
    ) -> list[list[int]]:
        """The answers as they were drawn: ids up to and with the end of the answer, which is not there if it was cut
        off. (Text encoded again may give other ids.)"""
        rows = self._answers(conversations, max_new_tokens, temperature, seeds)
        return [[*_before(row, self.tokenizer.eos), self.tokenizer.eos][: len(row)] for row in rows]

    @torch.no_grad()
    def embeddings(self, messages: Messages) -> Tensor:
        """(T, D): what the language model reads at each of `ids`, pictures included."""
        return self._embed(messages)

    @torch.no_grad()
    def seen(self, messages: Messages) -> Tensor | None:
        """(P, D) what stands in the places of the pictures of a conversation; None without any."""
        pictures = [picture for message in messages for picture in message.images]
        return torch.cat(self._looked(pictures)) if pictures else None

    def yes_probability(self, messages: Messages) -> float:
        logits = self.read([messages])[0].logits
        yes, no = self.first_ids("yes"), self.first_ids("no")
        both = torch.stack([logits[sorted(ids)].logsumexp(0) for ids in (yes - no, no - yes)])
        return both.softmax(0)[0].item()

    @torch.no_grad()
    def read(
        self, conversations: Sequence[Messages], before: Sequence[Reading | None] = (), remember: bool = False
    ) -> list[Reading]:
        """Whole chunks that two conversations share are computed once, so the numbers are the same to the last bit."""
        found = []
        for messages, earlier in zip(conversations, before or [None] * len(conversations), strict=True):
            ids = self.ids(messages)
            pictures = [picture for message in messages for picture in message.images]
            kept, seen, cache = 0, None, self._cache(1, len(ids))
            if earlier is not None and earlier.memory is not None:
                known, shown, features, old = earlier.memory
                # Ids do not tell one picture from another.
                if len(shown) == len(pictures) and all(a is b for a, b in zip(shown, pictures, strict=True)):
                    kept, seen = min(_agreeing(ids, known), len(ids) - 1) // self.chunk * self.chunk, features
                    cache.keys[..., :kept, :] = old.keys[..., :kept, :]
                    cache.values[..., :kept, :] = old.values[..., :kept, :]
            embeds = self._embed(messages, seen)
            last = embeds.new_zeros(1, embeds.shape[1])
            entry = Entry(0, embeds, range(len(ids)), len(ids), kept)
            self.work.prefilled += prefill([entry], cache, self.chunk, self._hidden, last)
            logits = padded_rows(self.model.text_logits, self.rows, last)[0].float().cpu()
            places = [place for place, index in enumerate(ids) if index == self.tokenizer.placeholder]
            found.append(Reading(logits, (ids, pictures, embeds[places], cache) if remember else None))
        return found

    def token(self, index: int) -> str:
        return self.tokenizer.tokenizer.id_to_token(index) or ""

    @torch.no_grad()
    def features(self, messages: Messages) -> Tensor:
        embeds = self._embed(messages)
        cache = self._cache(1, len(embeds))
        return torch.cat(list(self._chunks(embeds, cache)))[: len(embeds)]

    @torch.no_grad()
    def logits(self, messages: Messages) -> Tensor:
        """(T, vocabulary) float32: at every position of the conversation, what comes next."""
        return padded_rows(self.model.text_logits, self.rows, self.features(messages)).float()

    def ids(self, messages: Messages) -> list[int]:
        """The conversation as token ids; a picture is its start, a placeholder for each of its vectors, its end."""
        tokenizer = self.tokenizer
        roles = {"user": tokenizer.user, "assistant": tokenizer.assistant}
        system = SYSTEM if any(message.images for message in messages) else ""
        turns = []
        for message in messages:
            if message.role == "system":
                system = tokenizer.neutralise(message.text)
            else:
                turns.append((roles[message.role], self._turn(message)))
        ids, vectors = [], self.model.config.vision.num_image_tokens
        for index in tokenizer.encode(tokenizer.chat([*turns, (tokenizer.assistant, "")], system)):
            picture = [tokenizer.image_start, *[index] * vectors, tokenizer.image_end]
            ids += picture if index == tokenizer.placeholder else [index]
        return ids

    def _turn(self, message) -> str:
        """Special tokens in the text become mere text; only our own placeholders and those that are meant remain."""
        marks = {token: f"\0{place}\0" for place, token in enumerate((PLACEHOLDER, *message.special))}
        text = message.text
        for token in message.special:
            text = text.replace(token, marks[token])
        text = self.tokenizer.neutralise(replace(message, text=text).with_places(marks[PLACEHOLDER]))
        for token, mark in marks.items():
            text = text.replace(mark, token)
        return text

    def _embed(self, messages: Messages, seen: Tensor | None = None, told: Sequence[int] | None = None) -> Tensor:
        """(T, D) input embeddings, vision features in the places of the placeholders; `seen` has them already."""
        ids = torch.tensor(self.ids(messages) if told is None else told, device=self.model.device)
        embeds = self.model.embed_text(ids)
        pictures = [picture for message in messages for picture in message.images]
        if seen is None and pictures:
            seen = torch.cat(self._looked(pictures))
        if seen is not None:
            embeds[ids == self.tokenizer.placeholder] = seen
        return embeds

    def _looked(self, pictures: Sequence[Image.Image]) -> list[Tensor]:
        """(patches, D) of each picture. On a CPU one at a time, so that its features do not depend on the others; one
        that was seen a short while ago (a preview is judged and thought about) is remembered."""
        keys = [picture_key(picture) for picture in pictures]
        known = {key: self._seen.pop(key) for key in dict.fromkeys(keys) if key in self._seen}
        fresh = {key: picture for key, picture in zip(keys, pictures, strict=True) if key not in known}
        self.work.vision_encodes += len(fresh)
        device, left = self.model.device, list(fresh)
        size = 1 if device.type == "cpu" else self.together
        blocks = [left[i : i + size] for i in range(0, len(left), size)]

        def looked(part: slice) -> list[Tensor]:
            pictures = [[prepare(fresh[key], self.tokenizer.rules) for key in block] for block in blocks[part]]
            return [self.model.image_features(torch.stack(block).to(device)).to(device) for block in pictures]

        found = side_by_side(looked, shares(len(blocks), device))
        for block, features in zip(blocks, (one for part in found for one in part), strict=True):
            known |= zip(block, features, strict=True)
        self._seen |= {key: known[key] for key in keys}  # the latest stand last
        while len(self._seen) > self.remember:
            self._seen.pop(next(iter(self._seen)))
        return [known[key] for key in keys]

    def first_ids(self, word: str) -> set[int]:
        """First tokens of the ways in which a model may write this answer."""
        spellings = [space + form for space in ("", " ") for form in (word, word.capitalize(), word.upper())]
        return {self.tokenizer.encode(spelling)[1] for spelling in spellings}

    def _cache(self, batch: int, length: int, zeros: bool = True) -> KVCache:
        capacity = round_up(length, self.chunk)
        weight = self.model.language_model.lm_head.weight
        cache = KVCache.empty(self.model.config.language, batch, capacity, weight, self.rows, zeros)
        return cache.ready(self.model.language_model.model, self.chunk)

    def _chunks(self, embeds: Tensor, cache: KVCache):
        """Sends (T, D) through the language model in full chunks; yields hidden states (chunk, D)."""
        self.work.prefilled += len(embeds)
        for start in range(0, len(embeds), self.chunk):
            block = embeds[start : start + self.chunk]
            block = F.pad(block, (0, 0, 0, self.chunk - len(block)))
            positions = torch.arange(start, start + self.chunk, device=embeds.device)[None]
            yield self.model.hidden(block[None], cache, positions=positions, span=start + self.chunk)[0]

    def _enter(self, conversations: Sequence[Messages], room: int) -> tuple[KVCache, Tensor, list[list[int]]]:
        """Prefills several conversations, what they share once: the cache, with room for answers, the last hidden
        states (B, D), and the conversations' ids."""
        told = [self.ids(messages) for messages in conversations]
        embeds = self._embed_all(conversations, told)
        cache = self._cache(len(embeds), max(map(len, told)) + room, zeros=False)
        last = embeds[0].new_zeros(len(embeds), embeds[0].shape[1])
        entries = [
            Entry(row, rows, self._names(messages, ids), len(rows))
            for row, (rows, messages, ids) in enumerate(zip(embeds, conversations, told, strict=True))
        ]
        self.work.prefilled += prefill(entries, cache, self.chunk, self._hidden, last)
        for row, ids in enumerate(told):
            cache.clear(row, round_up(len(ids), self.chunk))
        return cache, last, told

    def _embed_all(self, conversations: Sequence[Messages], told: Sequence[Sequence[int]]) -> list[Tensor]:
        """`_embed` of each, all their pictures looked at together."""
        pictures = [[picture for message in messages for picture in message.images] for messages in conversations]
        looked = iter(self._looked([picture for each in pictures for picture in each]))
        seen = [torch.cat([next(looked) for _ in each]) if each else None for each in pictures]
        return [self._embed(*each) for each in zip(conversations, seen, told, strict=True)]

    def _names(self, messages: Messages, ids: Sequence[int]) -> list[Hashable]:
        """For each of its `ids` what its embedding depends on."""
        keys = iter([picture_key(picture) for message in messages for picture in message.images])
        vectors, names, left = self.model.config.vision.num_image_tokens, list[Hashable](), 0
        key = b""
        for index in ids:
            if index != self.tokenizer.placeholder:
                names.append(index)
                continue
            if left == 0:
                key, left = next(keys), vectors
            left -= 1
            names.append((key, left))
        return names

    def _hidden(self, embeds: Tensor, cache: KVCache, lengths: Tensor, positions: Tensor, **keywords) -> Tensor:
        return self.model.hidden(embeds, cache, positions=positions, **keywords)

    @torch.no_grad()
    def _answers(
        self,
        conversations: Sequence[Messages],
        limit: int,
        temperature: float,
        seeds: Sequence[int],
        on_ids: Callable[[list[int]], None] | None = None,
        enough: Sequence[Callable[[str], bool] | None] = (),
    ) -> list[list[int]]:
        """`limit` ids for each conversation, the end of the answer repeated behind it, or behind what is `enough`. Who
        has ended leaves."""
        cache, hidden, told = self._enter(conversations, limit)
        counts = list(map(len, told))
        device, eos = self.model.device, self.tokenizer.eos
        lengths, writing = torch.tensor(counts, device=device), torch.arange(len(counts), device=device)
        uniforms = draw_uniforms(seeds, limit).to(device)
        written = torch.full((len(counts), limit), eos, device=device)
        ended = torch.zeros(len(counts), dtype=torch.bool, device=device)
        for step in range(limit):
            if device.type == "cpu" and 2 * len(counts) <= self.rows and not ended.any():
                # There is room for a guess beside each token.
                said = [Answer(place, told[place]) for place in writing.tolist()]
                for answer in said:
                    self.followers.read(answer.asked)
                    answer.written += written[answer.number, :step].tolist()
                    answer.over = enough[answer.number] if enough else None
                write_by_guesses(self, said, cache, hidden, uniforms, temperature, on_ids)
                for answer in said:
                    written[answer.number, : len(answer.written)] = torch.tensor(answer.written)
                break
            logits = padded_rows(self.model.text_logits, self.rows, hidden)
            ids = pick(logits.float(), uniforms[writing, step], temperature).masked_fill(ended, eos)
            written[writing, step] = ids
            ended |= ids == eos
            if on_ids is not None:
                on_ids(ids.tolist())
            if step == limit - 1:
                break
            if enough:
                rows = zip(writing.tolist(), written[writing, : step + 1].tolist(), strict=True)
                over = [(test := enough[place]) is not None and test(self.text(row)) for place, row in rows]
                ended |= torch.tensor(over, device=device)
            if step % LOOK_EVERY == 0 or on_ids is not None or enough:
                left = (~ended).nonzero()[:, 0].tolist()
                if not left:
                    break
                if len(left) < len(ended):
                    cache, order = cache.closed_up(left, max(counts) + step)
                    ids, ended, lengths, writing = ids[order], ended[order], lengths[order], writing[order]
                    counts = [counts[row] for row in order]
            self.work.decoded += len(counts)
            positions = (lengths + step)[:, None]
            span = [round_up(count + step + 1, self.chunk) for count in counts]
            embeds = self.model.embed_text(ids[:, None])
            hidden = self.model.hidden(embeds, cache, positions=positions, span=span)[:, 0]
        return written.tolist()

    def text(self, ids: list[int]) -> str:
        """What an answer says before its end."""
        return self.tokenizer.decode(_before(ids, self.tokenizer.eos))


def _agreeing(a: list[int], b: list[int]) -> int:
    """How many leading ids agree."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _before(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end)] if end in ids else ids


def _teller(tokenizer: JanusTokenizer, on_text: Callable[[str], None]) -> Callable[[list[int]], None]:
    """Turns ids of a single answer into pieces of text; a piece waits while its last letter is incomplete."""
    ids, told = [], 0

    def hear(step: list[int]) -> None:
        nonlocal told
        ids.extend(step)
        text = tokenizer.decode(_before(ids, tokenizer.eos))
        if len(text) > told and not text.endswith("\ufffd"):
            on_text(text[told:])
            told = len(text)

    return hear


def picture_key(picture: Image.Image) -> bytes:
    """Tells pictures apart by their pixels."""
    return hashlib.sha256(f"{picture.mode}{picture.size}".encode() + picture.tobytes()).digest()


def prepare(picture: Image.Image, rules: ImageRules) -> Tensor:
    """A picture as the vision tower wants it: (3, S, S) float32, normalised.

    The longest side becomes S, the other is cut to whole pixels (transformers rounds it, the authors truncate); the
    rest of the square takes the mean colour.
    """
    picture = picture.convert("RGB")
    longest = max(picture.size)
    width, height = (max(int(side / longest * rules.size), rules.min_size) for side in picture.size)
    picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    square = Image.new("RGB", (rules.size, rules.size), tuple(int(value * 255) for value in rules.mean))
    square.paste(picture, ((rules.size - width) // 2, (rules.size - height) // 2))
    # Scaled in float64 and normalised in float32, as the authors' processor does, to the last bit.
    values = (np.asarray(square) * (1 / 255)).astype(np.float32)
    mean, std = np.array(rules.mean, np.float32), np.array(rules.std, np.float32)
    return torch.from_numpy(((values - mean) / std).transpose(2, 0, 1).copy())


def prepare_tensor(pixels: Tensor, rules: ImageRules) -> Tensor:
    """The same for pictures (B, 3, H, W) uint8 on any device. Those of the tower's own size never leave it."""
    if pixels.shape[2:] != (rules.size, rules.size):
        pictures = [Image.fromarray(one) for one in pixels.permute(0, 2, 3, 1).cpu().numpy()]
        return torch.stack([prepare(picture, rules) for picture in pictures]).to(pixels.device)
    values = (pixels.double() * (1 / 255)).float()
    mean, std = (torch.tensor(v, device=pixels.device)[:, None, None] for v in (rules.mean, rules.std))
    return (values - mean) / std
