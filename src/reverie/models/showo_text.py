"""The written side of Show-o: a Phi tokenizer, the ids of the special tokens, and how a prompt is laid out.

The checkpoint's vocabulary is the text tokens, then `[PAD]` and nine special tokens, then the image codes, then the
mask. None of the special ones stands in tokenizer.json: their ids follow from the number of text tokens.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

END = "<|endoftext|>"
SPECIAL = (
    "<|pad|>", "<|soi|>", "<|eoi|>", "<|sov|>", "<|eov|>", "<|t2i|>", "<|mmu|>", "<|t2v|>", "<|v2v|>", "<|lvg|>",
)  # fmt: skip
"""In the order of their ids, behind the text tokens."""


class ShowoTokenizer:
    def __init__(self, tokenizer: Tokenizer, text_tokens: int, longest: int = 128):
        """text_tokens: `llm_vocab_size` of the model, behind which the special tokens begin.
        longest: `max_seq_length`; a prompt fills a block of one token more."""
        end = tokenizer.token_to_id(END)
        if end is None:
            raise ValueError(
                f"tokenizer.json has no token {END!r}, which Show-o needs; use the tokenizer of a Show-o checkpoint."
            )
        if tokenizer.get_vocab_size() > text_tokens:
            raise ValueError(
                f"tokenizer.json has {tokenizer.get_vocab_size()} tokens, but the model has room for {text_tokens} "
                f"(llm_vocab_size); use the tokenizer that belongs to it."
            )
        self.tokenizer, self.text_tokens, self.longest = tokenizer, text_tokens, longest
        self.ids = {name: text_tokens + place for place, name in enumerate(SPECIAL)}
        self.start = self.end = end
        self.pad, self.t2i, self.mmu = (self.ids[name] for name in ("<|pad|>", "<|t2i|>", "<|mmu|>"))
        self.image_start, self.image_end = self.ids["<|soi|>"], self.ids["<|eoi|>"]

    @classmethod
    def load(cls, folder: str | Path, text_tokens: int, longest: int = 128) -> "ShowoTokenizer":
        path = Path(folder) / "tokenizer.json"
        if not path.is_file():
            raise ValueError(f"{folder} holds no tokenizer.json; copy it there from the Phi-1.5 checkpoint.")
        return cls(Tokenizer.from_file(str(path)), text_tokens, longest)

    def save(self, folder: str | Path) -> None:
        folder = Path(folder)
        self.tokenizer.save(str(folder / "tokenizer.json"))
        described = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END}
        (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=2) + "\n", "utf-8")

    def encode(self, text: str) -> list[int]:
        """Ids of the text alone; `<|endoftext|>` in it becomes the token of that name."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode([i for i in ids if i < self.text_tokens], skip_special_tokens=True)

    def neutralise(self, text: str) -> str:
        """Text of users or models in which the only special token that can be written is broken by a blank."""
        return text.replace(END, f"{END[0]} {END[1:]}")

    def painting_ids(self, prompt: str) -> list[int]:
        """Task, start, prompt, end; a prompt that is too long is cut. The empty prompt is the unconditional one."""
        ids = [self.t2i, self.start, *self.encode(self.neutralise(prompt)), self.end]
        room = self.longest + 1
        return ids if len(ids) <= room else [*ids[: room - 1], self.end]

    def padded(self, rows: Sequence[Sequence[int]], width: int | None = None) -> list[list[int]]:
        """Rows filled up with pads on the left, to the length of a prompt block if `width` is left out."""
        width = self.longest + 1 if width is None else width
        return [[self.pad] * (width - len(row)) + list(row) for row in rows]

    def question_ids(self, question: str, codes: Sequence[int]) -> list[int]:
        """A picture, as image codes in the model's vocabulary, and a question about it: the answer follows."""
        asked = self.encode(f"USER: \n{self.neutralise(question)} ASSISTANT:")
        return [self.mmu, self.image_start, *codes, self.image_end, self.start, *asked]
