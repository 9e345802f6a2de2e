"""A pipeline's own text encoder as one that writes: Qwen2.5-VL in Qwen-Image reasons with the weights that read the
prompt afterwards (Think-then-Generate, arXiv 2601.10332). That of an editing pipeline, which has an image processor,
sees pictures too; others read text only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from reverie.canvas import Work, draw_uniforms, pick
from reverie.vlms import IMAGE, Message, Messages, seeds_of

SYSTEM = "You are a helpful assistant."
"""The stock system turn of Qwen2.5-VL, where a conversation brings none."""
START, END, STOP = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
BEFORE, PICTURE, AFTER = "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"


class TextEncoderWriter:
    """A `VLM` (see vlms/__init__.py) over the language model of a loaded pipeline. Conversations are written one by
    one, so an answer depends on its conversation and its seed alone; `together` of them at once where rounding may
    differ with the company."""

    def __init__(self, pipeline: Any, *, work: Work | None = None, together: int = 1):
        if together < 1:
            raise ValueError(f"together={together}: conversations written at once, at least 1.")
        if not hasattr(pipeline.text_encoder, "generate"):
            raise ValueError(
                f"the text encoder of {type(pipeline).__name__} cannot write; take never, or a Qwen-Image."
            )
        self.pipeline, self.work, self.together = pipeline, work or Work(), together
        self.words = pipeline.tokenizer
        ends = (self.words.convert_tokens_to_ids(token) for token in (END, STOP))
        self.stop = [token for token in ends if token is not None]

    def write(
        self,
        messages: Messages,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        on_text: Callable[[str], None] | None = None,
    ) -> str:
        return self._text(self._written([messages], max_new_tokens, temperature, [seed], on_text)[0][0])

    def write_batch(
        self,
        conversations: Sequence[Messages],
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        return [self._text(ids) for ids, _ in self.write_scored(conversations, max_new_tokens, temperature, seeds)]

    def write_scored(
        self,
        conversations: Sequence[Messages],
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> list[tuple[list[int], Tensor]]:
        """Token ids of the answers, the token that ends one included where it came, and their log-probabilities (n,) at
        the temperature; those of the likeliest tokens at 1 where it is 0."""
        seeds = seeds_of(conversations, seeds)
        found: list[tuple[list[int], Tensor]] = []
        for first in range(0, len(conversations), self.together):
            here = slice(first, first + self.together)
            found += self._written(conversations[here], max_new_tokens, temperature, seeds[here])
        return found

    @torch.no_grad()
    def _written(
        self,
        conversations: Sequence[Messages],
        most: int,
        temperature: float,
        seeds: Sequence[int],
        on_text: Callable[[str], None] | None = None,
    ) -> list[tuple[list[int], Tensor]]:
        from transformers import GenerationConfig

        inputs = self.inputs([self.conversation(messages) for messages in conversations], left=True)
        draws = _Draws(self, draw_uniforms(seeds, most), temperature, on_text)
        # What the checkpoint recommends (sampling, penalties) is left out: the tokens are those of `draws`.
        how = GenerationConfig(max_new_tokens=most, do_sample=False, eos_token_id=self.stop, pad_token_id=self.stop[-1])
        written = self.pipeline.text_encoder.generate(**inputs, generation_config=how, logits_processor=[draws])
        rows = written[:, inputs["input_ids"].shape[1] :].tolist()
        found = [row[: next((i + 1 for i, token in enumerate(row) if token in self.stop), len(row))] for row in rows]
        self.work.decoded += sum(map(len, found))
        draws.tell(finished=True)
        scores = torch.stack(draws.scores, 1).cpu()
        return [(row, score[: len(row)]) for row, score in zip(found, scores, strict=True)]

    @torch.no_grad()
    def yes_probability(self, messages: Messages) -> float:
        logits = self.pipeline.text_encoder(**self._asked(messages)).logits[0, -1].float()
        yes, no = (
            logits[sorted({self.words.encode(form, add_special_tokens=False)[0] for form in forms})].logsumexp(0)
            for forms in (("yes", "Yes", "YES"), ("no", "No", "NO"))
        )
        return (yes - no).sigmoid().item()

    @torch.no_grad()
    def features(self, messages: Messages) -> Tensor:
        return self.pipeline.text_encoder(**self._asked(messages), output_hidden_states=True).hidden_states[-1][0]

    def _asked(self, messages: Messages) -> dict[str, Tensor]:
        return self.inputs([self.conversation(messages)])

    def conversation(self, messages: Messages) -> tuple[list[int], dict[str, Tensor]]:
        """ids in the turns that Qwen was trained on, up to where the answer begins, and what its eyes take, on the
        CPU; text that looks like a control token stays text. ValueError for pictures where there are no eyes."""
        pictures = [picture.convert("RGB") for message in messages for picture in message.images]
        seen = self._seen(pictures) if pictures else {}
        counts = iter([int(grid.prod()) // 4 for grid in seen.get("image_grid_thw", ())])
        turns = list(messages)
        if not turns or turns[0].role != "system":
            turns.insert(0, Message("system", SYSTEM))
        start, end = self.words.convert_tokens_to_ids([START, END])
        ids = []
        for turn in turns:
            ids += [start, *self._turn(turn, counts), end, *self._plain("\n")]
        return [*ids, start, *self._plain("assistant\n")], seen

    def inputs(self, rows: Sequence[tuple[list[int], dict[str, Tensor]]], left: bool = False) -> dict[str, Tensor]:
        """What the model takes of several conversations (see `conversation`), padded at the end or on the left."""
        device = self.pipeline._execution_device
        self.work.prefilled += sum(len(ids) for ids, _ in rows)
        side = "left" if left else "right"
        texts = [torch.tensor(ids) for ids, _ in rows]
        found = pad_sequence(texts, True, self.stop[-1], side).to(device)
        mask = pad_sequence([torch.ones_like(ids) for ids in texts], True, 0, side).to(device)
        seen = [eyes for _, eyes in rows if eyes]
        if not seen:
            return {"input_ids": found, "attention_mask": mask}
        places = (found == self.words.convert_tokens_to_ids(PICTURE)).long()
        pixels = {name: torch.cat([eyes[name] for eyes in seen]).to(device) for name in seen[0]}
        return {"input_ids": found, "attention_mask": mask, "mm_token_type_ids": places, **pixels}

    def _turn(self, turn: Message, counts: Iterator[int]) -> list[int]:
        """Text and pictures in their order; a picture of n merged patches is n tokens between two others."""
        # Where the text marks no places, pictures come first, as in the pipelines' own template.
        marked = IMAGE in turn.text and turn.images
        texts = turn.text.split(IMAGE) if marked else [*[""] * len(turn.images), turn.text]
        ids = self._plain(f"{turn.role}\n{texts[0]}")
        before, picture, after = self.words.convert_tokens_to_ids([BEFORE, PICTURE, AFTER])
        for text in texts[1:]:
            ids += [before, *[picture] * next(counts), after, *self._plain(text)]
        return ids

    def _seen(self, pictures: Sequence[Any]) -> dict[str, Tensor]:
        processor = getattr(self.pipeline, "processor", None)
        if processor is None:
            raise ValueError(f"{type(self.pipeline).__name__} reads text only; ask a model with eyes about pictures.")
        self.work.vision_encodes += len(pictures)
        found = processor.image_processor(pictures, return_tensors="pt")
        return {name: found[name] for name in ("pixel_values", "image_grid_thw")}

    def _plain(self, text: str) -> list[int]:
        return self.words(text, add_special_tokens=False, split_special_tokens=True).input_ids

    def _text(self, ids: Sequence[int]) -> str:
        return self.words.decode([token for token in ids if token not in self.stop], skip_special_tokens=True)


class _Draws:
    """A logits processor that leaves one token a row, the one which that row's stream of uniforms picks; of a single
    conversation it tells."""

    def __init__(self, writer: TextEncoderWriter, uniforms: Tensor, temperature: float, on_text: Any):
        """uniforms: (B, steps)."""
        self.writer, self.uniforms, self.temperature, self.on_text = writer, uniforms, temperature, on_text
        self.step = 0
        self.scores: list[Tensor] = []
        """Of each step (B,): log-probabilities of what was picked."""
        self.ids: list[int] = []
        self.told = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if not self.step:
            self.uniforms = self.uniforms.to(scores.device)
        chosen = pick(scores.float(), self.uniforms[:, self.step], self.temperature)
        self.step += 1
        likely = (scores.float() / (self.temperature or 1.0)).log_softmax(-1)
        self.scores.append(likely.gather(1, chosen[:, None])[:, 0])
        if self.on_text is not None:
            self.ids.append(int(chosen))
            self.tell()
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)

    def tell(self, finished: bool = False) -> None:
        """What is new. A letter may take several tokens; until the end it is told when it is whole."""
        if self.on_text is None:
            return
        text = self.writer._text(self.ids)
        if len(text) > self.told and (finished or not text.endswith("\ufffd")):
            self.on_text(text[self.told :])
            self.told = len(text)
