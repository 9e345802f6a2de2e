"""Any chat model with eyes from transformers: Qwen2-VL and later, and what else `AutoModelForImageTextToText` loads.

Every answer draws from a stream of its own, so it depends on its conversation and its seed. Conversations of a batch
are padded on the left; a batch may still round differently than a single conversation does, as with all such models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reverie.canvas import Work, draw_uniforms, pick
from reverie.models.low_rank import add_adapter, base_of
from reverie.models.pretrained import read_config
from reverie.models.quiet import unless_large
from reverie.vlms import IMAGE, Message, Messages, Reading, seeds_of
from reverie.vlms.prefixes import read
from reverie.vlms.states import LAST, FeatureStates, Kept


@dataclass(frozen=True)
class Answer:
    """What a model wrote: text, token ids (the end token too, if it came), and a feature (n, D) for each token.

    Feature i is what the output head read when it wrote token i: the last state behind the final norm at the position
    before the token, which has not seen the token yet. Others can be asked for, see states.py.
    """

    text: str
    ids: tuple[int, ...]
    features: Tensor


class TransformersVLM:
    """A `VLM` and a `Reader` (see vlms/__init__.py) over a loaded model and its processor."""

    interleaves = True

    def __init__(
        self,
        model: Any,
        processor: Any,
        *,
        number_pictures: bool = False,
        batch: int = 8,
        work: Work | None = None,
        states: FeatureStates = LAST,
    ):
        """number_pictures: the chat template numbers the pictures in the text, if it can (Qwen's `add_vision_id`).
        batch: conversations that are read at once. states: of which features are made."""
        if not processor.chat_template and not getattr(processor.tokenizer, "chat_template", None):
            raise ValueError("The model's processor has no chat template, so it is no chat model; choose another one.")
        self.model, self.processor, self.work = model.eval(), processor, work or Work()
        self.number_pictures, self.batch, self.states = number_pictures, batch, states
        states.check(model.config.get_text_config().num_hidden_layers)
        self.tokenizer = processor.tokenizer
        self.tokenizer.padding_side = "left"
        stop = model.generation_config.eos_token_id
        stop = self.tokenizer.eos_token_id if stop is None else stop
        self.stop = [stop] if isinstance(stop, int) else list(stop)
        usual = model.generation_config
        self.filters = (getattr(usual, "top_k", None) or 0, getattr(usual, "top_p", None) or 1.0)
        places = (getattr(model.config, name, None) for name in ("image_token_id", "image_token_index"))
        self.picture_token: int | None = next((place for place in places if place is not None), None)
        """Stands in ids where a picture goes; None where the model does not say."""

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str | None = None,
        max_pixels: int | None = None,
        number_pictures: bool = False,
        states: FeatureStates = LAST,
    ) -> TransformersVLM:
        """From a folder or hub id. dtype: by default bfloat16 on accelerators and float32 on the CPU. max_pixels:
        largest area a picture enters with, for processors that have such a limit (Qwen). states: of which features are
        made. The folder may hold an adapter (models/low_rank.py), whose processor is that of its base."""
        from transformers import AutoModelForImageTextToText
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
        from transformers.utils import logging

        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        dtype = dtype or (torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16)
        config = read_config(source)
        if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            raise ValueError(f"{source} is a {config.model_type} model, which cannot look and write.")
        base = base_of(source) or source
        try:
            processor = load_processor(base, config, **({} if max_pixels is None else {"max_pixels": max_pixels}))
            with unless_large(base, logging):
                model: Any = AutoModelForImageTextToText.from_pretrained(base, dtype=dtype)
        except OSError as error:
            raise ValueError(f"{source} lacks weights or processor ({str(error).splitlines()[0]}).") from error
        if base != source:
            weights = dict(model.named_parameters())  # a tied one stands there once
            add_adapter(source, weights)
            model.load_state_dict(weights, strict=False)
        return cls(model.to(device), processor, number_pictures=number_pictures, states=states)

    @property
    def width(self) -> int:
        """Of its features."""
        return self.model.get_output_embeddings().in_features * self.states.parts

    def write(
        self,
        messages: Messages,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        on_text: Callable[[str], None] | None = None,
    ) -> str:
        return self.answers([messages], max_new_tokens, temperature, [seed], on_text=on_text)[0].text

    def write_batch(
        self,
        conversations: Sequence[Messages],
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        return [answer.text for answer in self.answers(conversations, max_new_tokens, temperature, seeds)]

    @torch.no_grad()
    def read(
        self, conversations: Sequence[Messages], before: Sequence[Reading | None] = (), remember: bool = False
    ) -> list[Reading]:
        return read(self, conversations, before, remember)

    def _first_logits(self, messages: Messages) -> Tensor:
        """(V,): of the answer's first token."""
        return self.read([messages])[0].logits

    def first_tokens(self, messages: Messages, number: int = 20) -> dict[str, float]:
        """The likeliest first tokens of the answer, as text, with their probabilities."""
        found = self._first_logits(messages).softmax(0).topk(number)
        told: dict[str, float] = {}
        for index, probability in zip(found.indices.tolist(), found.values.tolist(), strict=True):
            token = self.tokenizer.decode([index])
            told[token] = told.get(token, 0.0) + probability
        return told

    def yes_probability(self, messages: Messages) -> float:
        logits = self._first_logits(messages)
        yes, no = self.first_ids("yes"), self.first_ids("no")
        both = torch.stack([logits[sorted(ids)].logsumexp(0) for ids in (yes - no, no - yes)])
        return both.softmax(0)[0].item()

    def features(self, messages: Messages) -> Tensor:
        return self.features_batch([messages])[0]

    @torch.no_grad()
    def features_batch(self, conversations: Sequence[Messages]) -> list[Tensor]:
        """What `features` gives for each: (T, D) at every position, those of pictures and of the template included.
        ValueError if states behind the tokens are asked for: here, all have read their token."""
        if self.states.read:
            raise ValueError("States of a question have read their tokens as they are; leave out `read`.")
        inputs, layers = self.inputs(conversations), self.states.layers
        found = self.model.base_model(**inputs, use_cache=False, output_hidden_states=layers != LAST.layers)
        several = [found.last_hidden_state if layer == -1 else found.hidden_states[layer] for layer in layers]
        hidden = torch.cat(several, -1)
        return [row[mask.bool()] for row, mask in zip(hidden, inputs["attention_mask"], strict=True)]

    @torch.no_grad()
    def answers(
        self,
        conversations: Sequence[Messages],
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
        *,
        top_p: float = 1.0,
        min_new_tokens: int = 0,
        on_text: Callable[[str], None] | None = None,
    ) -> list[Answer]:
        """The answers with their features, which are taken where they arise: nothing is computed twice.

        top_p: drawn from the likeliest tokens that together have this share. min_new_tokens: an answer does not end
        before; equal to `max_new_tokens`, all answers have that length, as ThinkDiff draws from 128 tokens.
        """
        if not conversations:
            return []
        seeds = seeds_of(conversations, seeds)
        if max_new_tokens < 1 or not 0 <= min_new_tokens <= max_new_tokens:
            raise ValueError(f"An answer of {min_new_tokens} to {max_new_tokens} tokens cannot be written.")
        inputs = self.inputs(conversations)
        draws = Draws(draw_uniforms(seeds, max_new_tokens).to(self.model.device), temperature, top_p)
        if on_text is not None:
            draws.on_ids = _teller(self.tokenizer, self.stop, on_text)
        states = Kept(self.model, self.states, len(conversations), max_new_tokens)
        with states:
            written = self.model.generate(
                **inputs, generation_config=self._how(max_new_tokens, min_new_tokens), logits_processor=[draws]
            )
        rows = written[:, inputs["input_ids"].shape[1] :].tolist()
        self.work.decoded += sum(map(len, rows))
        answers = [tuple(row[: self._end(row)]) for row in rows]
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]
        told = enumerate(zip(texts, answers, strict=True))
        return [Answer(text, ids, states.of(number, len(ids))) for number, (text, ids) in told]

    def _end(self, row: list[int]) -> int:
        """Length of an answer, its end token included."""
        return next((place + 1 for place, index in enumerate(row) if index in self.stop), len(row))

    def _how(self, most: int, least: int) -> Any:
        """Plain decoding with our own draws: what the checkpoint recommends (sampling, penalties) is left out."""
        from transformers import GenerationConfig

        pad = self.tokenizer.pad_token_id
        return GenerationConfig(
            max_new_tokens=most,
            min_new_tokens=least or None,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            eos_token_id=self.stop,
            pad_token_id=self.stop[0] if pad is None else pad,
        )

    def processed(self, conversations: Sequence[Messages]) -> Any:
        """What the model takes, by its own chat template; text that looks like a control token stays text."""
        chats = [
            [{"role": message.role, "content": parts(message)} for message in messages] for messages in conversations
        ]
        return self.processor.apply_chat_template(
            chats,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            sanitize_control_tokens=True,
            processor_kwargs={"padding": True},
            **({"add_vision_id": True} if self.number_pictures else {}),
        )

    def inputs(self, conversations: Sequence[Messages]) -> dict[str, Tensor]:
        """The same on the model's device and in its type, and put on the account."""
        found = self.processed(conversations)
        self.work.vision_encodes += sum(len(message.images) for messages in conversations for message in messages)
        self.work.prefilled += int(found["attention_mask"].sum())
        found = found.to(self.model.device)
        return {
            name: tensor.to(self.model.dtype) if tensor.is_floating_point() else tensor
            for name, tensor in found.items()
        }

    def first_ids(self, word: str) -> set[int]:
        """First tokens of the ways in which a model may write this answer."""
        spellings = [space + form for space in ("", " ") for form in (word, word.capitalize(), word.upper())]
        return {self.tokenizer.encode(spelling, add_special_tokens=False)[0] for spelling in spellings}

    def token(self, index: int) -> str:
        return self.tokenizer.convert_ids_to_tokens(index)


def parts(message: Message) -> list[dict[str, Any]]:
    """A message as chat templates take it: pictures and pieces of text in the order in which they are to be read."""
    pieces = message.text.split(IMAGE) if message.images and IMAGE in message.text else None
    if pieces is None:
        pieces = [""] * len(message.images) + [message.text]
    content: list[dict[str, Any]] = []
    for number, piece in enumerate(pieces):
        if piece:
            content.append({"type": "text", "text": piece})
        if number < len(message.images):
            content.append({"type": "image", "image": message.images[number].convert("RGB")})
    return content


class Draws:
    """A logits processor that leaves one token a row: the one which that row's own stream of uniforms picks."""

    def __init__(self, uniforms: Tensor, temperature: float, top_p: float):
        """uniforms: (B, steps). temperature 0 takes the likeliest token."""
        if not 0 < top_p <= 1 or temperature < 0:
            raise ValueError(f"temperature={temperature}, top_p={top_p}: at least 0, and a share above 0 up to 1.")
        self.uniforms, self.temperature, self.top_p, self.step = uniforms, temperature, top_p, 0
        self.on_ids: Callable[[list[int]], None] | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        logits = scores.float()
        if self.top_p < 1 and self.temperature:
            logits = nucleus(logits / self.temperature, self.top_p) * self.temperature
        ids = pick(logits, self.uniforms[:, self.step], self.temperature)
        self.step += 1
        if self.on_ids is not None:
            self.on_ids(ids.tolist())
        return torch.full_like(scores, -torch.inf).scatter_(1, ids[:, None], 0.0)


def nucleus(logits: Tensor, share: float) -> Tensor:
    """(B, V) logits, with -inf for all but the likeliest tokens that together reach `share` (at least one)."""
    ranked, order = logits.sort(-1, descending=True)
    probabilities = ranked.softmax(-1)
    out = probabilities.cumsum(-1) - probabilities >= share
    return logits.masked_fill(out.gather(1, order.argsort(-1)), -torch.inf)


def load_processor(source: str | Path, config: Any, **values: Any) -> Any:
    """The model's processor. Where torchvision is missing, which only its videos need, one that knows no videos; and so
    for one that was saved without."""
    from transformers import AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
    from transformers.utils import is_torchvision_available

    if is_torchvision_available() and not _knows_no_videos(source):
        return AutoProcessor.from_pretrained(source, **values)
    kind: Any = PROCESSOR_MAPPING.get(type(config), None)
    if kind is None or "video_processor" not in kind.get_attributes():
        return AutoProcessor.from_pretrained(source, **values)
    return without_videos(kind).from_pretrained(source, **values)


def _knows_no_videos(source: str | Path) -> bool:
    """Whether what lies in a folder was saved from `without_videos`."""
    told = Path(source) / "processor_config.json"
    return told.is_file() and '"PicturesOnly"' in told.read_text("utf-8")


def without_videos(kind: Any) -> Any:
    """A processor class of transformers that takes pictures and text, and asks for no video processor."""

    class PicturesOnly(kind):
        def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None):
            super().__init__(image_processor, tokenizer, None, chat_template=chat_template)

    return PicturesOnly


def _teller(tokenizer: Any, stop: Sequence[int], on_text: Callable[[str], None]) -> Callable[[list[int]], None]:
    """Turns the ids of a single answer into pieces of text; a piece waits while its last letter is incomplete."""
    ids: list[int] = []
    told = 0

    def hear(step: list[int]) -> None:
        nonlocal told
        ids.extend(index for index in step if index not in stop)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        if len(text) > told and not text.endswith("\ufffd"):
            on_text(text[told:])
            told = len(text)

    return hear
