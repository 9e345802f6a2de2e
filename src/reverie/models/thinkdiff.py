"""ThinkDiff at inference: from pictures and words to the vectors a diffusion model reads in place of its prompt.

A VLM answers (LVLM), or a vision tower looks (CLIP); the aligner writes what it means in the language of a T5 encoder.
Every pipeline that reads its prompt through that encoder takes the result as `prompt_embeds`, without its own T5 being
loaded. Pipelines that also want a pooled vector get that of `pooled_text`: of the empty text for LVLM, whose words are
all in the vectors, and of the user's text for CLIP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from reverie.canvas import Work
from reverie.models.aligner import Aligner
from reverie.models.t5 import encode_text
from reverie.models.vision_tokens import clip_pixels, image_tokens
from reverie.vlms import IMAGE, Message, Messages

if TYPE_CHECKING:
    from transformers import Blip2VisionModel, PreTrainedTokenizerBase, T5ForConditionalGeneration

    from reverie.vlms.transformers import TransformersVLM

FEATURES = ("generated", "input", "input-without-system", "both")
SYSTEM_TOKENS = 14
"""Length of the system turn in Qwen2-VL's chat template, which `input-without-system` leaves out, as the authors do."""
TOKENS = 128
"""Vectors of an LVLM condition: the answer runs on to this length, as in the authors' inference."""

INSTRUCTION = (
    "Below, each word stands before the picture that belongs to it, and the last word has no picture yet. Find out how "
    "words and pictures go together and what the missing picture must show. Give no explanation: answer with nothing "
    "but a detailed prompt for a text-to-image model that would draw the missing picture. Start the prompt with the "
    'words "Create an image".'
)


@dataclass(frozen=True)
class Condition:
    """vectors: (1, L, D), in the place of the T5 encoder's output; every one counts, there is no padding.
    pooled_text: the text whose pooled CLIP vector goes with them. text: what the VLM answered, for people. work: what
    reading and answering took, the vectors not counted."""

    vectors: Tensor
    pooled_text: str = ""
    text: str = ""
    work: Work = field(default_factory=Work)


def in_context(pairs: Sequence[tuple[Image.Image, str]], last: str, instruction: str = INSTRUCTION) -> list[Message]:
    """One turn that shows (picture, word) pairs and then a word whose picture is to be imagined (CoBSAT's question)."""
    lines = [f"Word {number}: {mark_free(word)}, {IMAGE}" for number, (_, word) in enumerate(pairs, 1)]
    lines.append(f"Word {len(pairs) + 1}: {mark_free(last)}, ")
    return [Message("user", "\n\n".join([instruction, *lines]), tuple(picture for picture, _ in pairs))]


def question(context: Sequence[Any], prompt: str, instruction: str = INSTRUCTION) -> list[Message]:
    """One turn about a context of PIL images and strings, in their order, and a prompt. Pairs of a picture and its word
    are asked as CoBSAT asks; anything else is shown as it stands."""
    found = pairs(context)
    if found is not None:
        return in_context(found, prompt, instruction)
    told = [mark_free(part) if isinstance(part, str) else IMAGE for part in (*context, prompt)]
    seen = tuple(part for part in context if not isinstance(part, str))
    return [Message("user", "\n\n".join(told), seen)]


def pairs(parts: Sequence[Any]) -> list[tuple[Any, str]] | None:
    """(picture, word) where pictures and words alternate, the word before its picture or after it; else None."""
    first, second = parts[::2], parts[1::2]
    for pictures, words in ((first, second), (second, first)):
        if (
            len(first) == len(second)
            and not any(isinstance(part, str) for part in pictures)
            and all(isinstance(part, str) for part in words)
        ):
            return list(zip(pictures, words, strict=True))
    return None


def mark_free(text: str) -> str:
    """A user's text in which nothing stands for a picture."""
    return text.replace(IMAGE, "").strip()


def choose(generated: Tensor, asked: Tensor, which: str = "generated") -> Tensor:
    """(L, D): the features that enter the aligner. generated: of the answer's tokens; asked: of the question's.

    The paper's method feeds `generated`; the others are its ablations (`both`: question, then answer).
    """
    if which not in FEATURES:
        raise ValueError(f"features={which!r}: must be one of {', '.join(FEATURES)}.")
    if which == "generated":
        return generated
    if which == "both":
        return torch.cat((asked, generated))
    return asked if which == "input" else asked[SYSTEM_TOKENS:]


def check_fit(vlm: TransformersVLM, aligner: Aligner) -> None:
    """ValueError if the aligner was trained on features of other states or of another width."""
    takes = aligner.config
    if (vlm.width, vlm.states) != (takes.source, takes.states):
        raise ValueError(
            f"The model's features are {vlm.width} wide ({vlm.states}), and the aligner takes {takes.source} "
            f"({takes.states}); use the model and the states that the aligner was trained on."
        )


@torch.no_grad()
def think(
    vlm: TransformersVLM,
    aligner: Aligner,
    messages: Messages,
    seed: int = 0,
    *,
    tokens: int = TOKENS,
    run_on: bool = True,
    features: str = "generated",
    temperature: float = 0.6,
    top_p: float = 0.9,
) -> Condition:
    """ThinkDiff-LVLM. run_on: the answer always has `tokens` tokens, whatever the model would say (the authors' way);
    otherwise it ends where the model ends it, as in training."""
    check_fit(vlm, aligner)
    least, before = tokens if run_on else 1, replace(vlm.work)
    answer = vlm.answers([messages], tokens, temperature, [seed], top_p=top_p, min_new_tokens=least)[0]
    asked = answer.features[:0] if features == "generated" else vlm.features(messages).cpu()
    chosen = choose(answer.features, asked, features).to(aligner.device, torch.float32)
    return Condition(aligner(chosen)[None], text=answer.text, work=vlm.work - before)


@torch.no_grad()
def look(
    tower: Blip2VisionModel,
    aligner: Aligner,
    pictures: Sequence[Image.Image],
    text: str,
    t5: T5ForConditionalGeneration,
    words: PreTrainedTokenizerBase,
    *,
    factor: int | None = 2,
    text_tokens: int = 128,
) -> Condition:
    """ThinkDiff-CLIP: the aligned tokens of each picture, in order, then the T5 encoding of the text.

    text_tokens: the text is padded or cut to this length; padding is encoded too, as diffusion models do with prompts.
    FLUX takes 128; CogVideoX, whose sequence has 226 places, what the pictures leave of them.
    """
    if not pictures:
        raise ValueError("ThinkDiff-CLIP needs at least one picture; a text alone needs no aligner.")
    side = tower.config.image_size
    assert isinstance(side, int)  # these towers are square
    pixels = torch.stack([clip_pixels(picture, side) for picture in pictures])
    seen = image_tokens(tower, pixels.to(tower.device), factor)
    aligned = aligner(seen.to(aligner.device, torch.float32))
    told = words(text, padding="max_length", truncation=True, max_length=text_tokens, return_tensors="pt").to(t5.device)
    # No mask: the models' own text pipelines let the encoder see its padding.
    states = encode_text(t5, told["input_ids"], torch.ones_like(told["input_ids"]))
    vectors = torch.cat((aligned.flatten(0, 1)[None], states.to(aligned)), 1)
    return Condition(vectors, text, work=Work(vision_encodes=len(pictures)))
