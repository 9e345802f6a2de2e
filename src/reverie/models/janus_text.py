"""The written side of Janus: tokenizer, special tokens, and the chat string of the authors ("deepseek" format).

Ids are looked up by token string, never assumed. The tokenizer is built from tokenizer.json, whatever class
tokenizer_config.json names; encoding puts the begin-of-sentence token first and nothing last.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tokenizers import Tokenizer

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
IMAGE_START, IMAGE_END, PLACEHOLDER = "<begin_of_image>", "<end_of_image>", "<image_placeholder>"
USER, ASSISTANT = "<|User|>", "<|Assistant|>"
SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)


@lru_cache(4096)
def _encoded(tokenizer: Tokenizer, text: str) -> tuple[int, ...]:
    """One text is asked for many times: for its ids, its length, its names, and by every image of a prompt."""
    return tuple(tokenizer.encode(text, add_special_tokens=False).ids)


@dataclass(frozen=True)
class ImageRules:
    """How a picture is prepared for the vision tower (preprocessor_config.json)."""

    size: int
    min_size: int = 14
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)


class JanusTokenizer:
    def __init__(
        self, tokenizer: Tokenizer, rules: ImageRules, roles: Sequence[str] | None = None, verbatim: bool = False
    ):
        """roles: how user and assistant are called; by default as in Janus-Pro if the vocabulary has those names,
        otherwise `User` and `Assistant`, as in the first Janus.
        verbatim: painting prompts keep the blanks around them."""
        self.tokenizer, self.rules = tokenizer, rules
        self.bos, self.eos, self.pad = self._id(BOS), self._id(EOS), self._id(PAD)
        self.image_start, self.image_end, self.placeholder = (
            self._id(IMAGE_START),
            self._id(IMAGE_END),
            self._id(PLACEHOLDER),
        )
        plain = tokenizer.token_to_id(USER) is None
        self.verbatim = verbatim
        self.user, self.assistant = roles or (("User", "Assistant") if plain else (USER, ASSISTANT))
        added = tokenizer.get_added_tokens_decoder().values()
        self.reserved = tuple(token.content for token in added if token.special and len(token.content) > 1)

    @classmethod
    def load(cls, folder: str | Path, image_size: int, roles: Sequence[str] | None = None) -> "JanusTokenizer":
        """From tokenizer.json and preprocessor_config.json; `image_size` serves where the latter does not tell."""
        folder = Path(folder)
        if not (folder / "tokenizer.json").is_file():
            raise ValueError(f"{folder} holds no tokenizer.json; copy it there from the original checkpoint.")
        described = folder / "preprocessor_config.json"
        data = json.loads(described.read_text("utf-8")) if described.is_file() else {}
        size = data.get("image_size") or data.get("size", image_size)
        rules = ImageRules(
            size["height"] if isinstance(size, dict) else size,
            data.get("min_size", 14),
            tuple(data.get("image_mean") or (0.5, 0.5, 0.5)),
            tuple(data.get("image_std") or (0.5, 0.5, 0.5)),
        )
        return cls(Tokenizer.from_file(str(folder / "tokenizer.json")), rules, roles)

    def as_published_for_painting(self) -> "JanusTokenizer":
        """The same with the plain role names and untrimmed prompts of Thinking-while-Generating's script."""
        return JanusTokenizer(self.tokenizer, self.rules, ("User", "Assistant"), verbatim=True)

    def save(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.tokenizer.save(str(folder / "tokenizer.json"))
        special = {"bos_token": BOS, "eos_token": EOS, "pad_token": PAD}
        rules = {
            "image_processor_type": "VLMImageProcessor",
            "image_size": self.rules.size,
            "min_size": self.rules.min_size,
            "image_mean": list(self.rules.mean),
            "image_std": list(self.rules.std),
            "rescale_factor": 1 / 255,
            "do_normalize": True,
        }
        for name, content in (
            ("tokenizer_config.json", special | {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True}),
            ("special_tokens_map.json", special),
            ("preprocessor_config.json", rules),
        ):
            (folder / name).write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")

    def encode(self, text: str) -> list[int]:
        """Ids with the begin-of-sentence token in front; special-token strings in `text` become their tokens."""
        return [self.bos, *_encoded(self.tokenizer, text)]

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def neutralise(self, text: str) -> str:
        """Text of users or models with every special-token string broken by a blank, so that it stays mere text."""
        while found := next((token for token in self.reserved if token in text), None):
            text = text.replace(found, f"{found[0]} {found[1:]}")
        return text

    def chat(self, turns: Sequence[tuple[str, str]], system: str = "") -> str:
        """(role, content) turns as one string; an empty last turn asks the model to go on there."""
        parts = [f"{system}\n\n"] if system else []
        for role, content in turns:
            ending = "\n\n" if role == self.user else EOS
            parts.append(f"{role}: {content.strip()}{ending}" if content else f"{role}:")
        return "".join(parts).strip()

    def painting_ids(self, prompt: str) -> list[int]:
        """The ids after which the first image code follows."""
        prompt = self.neutralise(prompt)
        if self.verbatim:
            return self.encode(f"{self.user}: {prompt}\n\n{self.assistant}:{IMAGE_START}")
        return self.encode(self.chat([(self.user, prompt), (self.assistant, "")]) + IMAGE_START)

    def blank_ids(self, ids: Sequence[int]) -> list[int]:
        """The unconditional twin: everything between the first and the last id is padding, and is attended."""
        return [ids[0], *[self.pad] * (len(ids) - 2), ids[-1]]

    def _id(self, token: str) -> int:
        index = self.tokenizer.token_to_id(token)
        if index is None:
            raise ValueError(
                f"tokenizer.json has no token {token!r}, which Janus needs; use the tokenizer of a Janus checkpoint."
            )
        return index
