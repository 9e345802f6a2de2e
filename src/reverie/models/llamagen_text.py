"""The written side of LlamaGen: captions are cleaned, cut to 120 tokens, and read by the encoder of a T5.

The cleaning is that of the captions the public model was trained on (it comes from DeepFloyd IF): it takes out what web
captions carry besides their meaning. Two of its helpers are not used here: broken encodings are not mended (ftfy), and
HTML tags are dropped by a pattern instead of a parser, which is the same for well-formed ones.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote_plus

import torch
from tokenizers import Tokenizer
from torch import Tensor

from reverie.models.llamagen import CAPTION_SLOTS
from reverie.models.quiet import quietly

PUBLIC_ENCODER = "google/flan-t5-xl"
"""What the public LlamaGen was trained with."""

_SITES = r"[a-z0-9.\-]+[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b/?(?!@)"
_FILES = r"(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)"
_DASHES = "\u002d\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a\u2e3b\u2e40\u301c\u3030\u30a0"
_DASHES += "\ufe31\ufe32\ufe58\ufe63\uff0d"

# (pattern, what stands for it), in the order of the authors. Text is lower-case by then.
_WEB = [
    ("<person>", "person"),
    (rf"\b(?:https?:(?:/{{1,3}}|[a-z0-9%])|{_SITES})", ""),
    (rf"\b(?:www:(?:/{{1,3}}|[a-z0-9%])|{_SITES})", ""),
    (r"<!--.*?-->|</?[a-z][^<>]*>", ""),
]
_BEFORE = [
    (r"@\w+\b", ""),
    # Strokes, phonetic extensions, enclosed and compatibility letters, ideographs (31C0-9FFF but for gaps).
    ("[\u31c0-\u4dff\u4e00-\u9fff]+", ""),
    (rf"[{_DASHES}]+", "-"),
    ("[`´«»“”¨]", '"'),
    ("[‘’]", "'"),
    ("&quot;?", ""),
    ("&amp", ""),
    (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),  # addresses of machines
    (r"\d:\d\d\s+$", ""),
    (r"\\n", " "),
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"\S+\.{_FILES}", ""),
    (r"[\"']{2,}", '"'),
    (r"\.{2,}", " "),
    (r"[#®•©™&@·º½¾¿¡§~)(\]\[}{|\\/*]+", " "),
    (r"\s+\.\s+", " "),
]
_AFTER = [
    (r"\b[a-z]{1,3}\d{3,15}\b", ""),  # jc6640
    (r"\b[a-z]+\d+[a-z]+\b", ""),
    (r"\b\d+[a-z]+\d+\b", ""),
    (r"(?:worldwide\s+)?(?:free\s+)?shipping", ""),
    (r"(?:free\s)?download(?:\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b{_FILES}(?:\simages?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*[a-z]+\d+[a-z]+\d+[a-z\d]*\b", " "),
    (r"\b\d+\.?\d*[xх×]\d+\.?\d*\b", ""),  # sizes; one of the crosses is Cyrillic
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", r"\1 "),
    (r"\s+", " "),
    (r"^[\"']([\w\W]+)[\"']$", r"\1"),
    (r"^['_,\-:;]", ""),
    (r"['_,\-:+]$", ""),
    (r"^\.\S+$", ""),
]


def clean_caption(text: str) -> str:
    """The caption as the public model knows captions. The authors clean everything twice."""
    return _cleaned_once(_cleaned_once(text))


def _cleaned_once(text: str) -> str:
    text = unquote_plus(text).strip().lower()
    for pattern, instead in _WEB:
        text = re.sub(pattern, instead, text)
    text = html.unescape(text)
    for pattern, instead in _BEFORE:
        text = re.sub(pattern, instead, text)
    if len(re.findall("[-_]", text)) > 3:  # this-is-a-file-name
        text = re.sub("[-_]", " ", text)
    text = html.unescape(html.unescape(text)).strip()
    for pattern, instead in _AFTER:
        text = re.sub(pattern, instead, text)
    return text.strip()


class CaptionEncoder:
    """Token ids and T5 features of captions. Each caption is read alone, so that its numbers depend on nothing else."""

    def __init__(self, tokenizer: Tokenizer, network: Any, end: int):
        """network: a transformers `T5EncoderModel`. end: the id that closes a caption."""
        self.tokenizer, self.network, self.end = tokenizer, network, end

    @classmethod
    def load(
        cls, source: str | Path, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> CaptionEncoder:
        """From a folder in the layout of transformers, or a hub id, which is then fetched (encoder only). ValueError,
        in one sentence, for anything else."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
        from safetensors import SafetensorError
        from transformers import T5EncoderModel
        from transformers.utils import logging

        here = Path(source).is_dir()
        if here and (lacking := [n for n in ("config.json", "tokenizer.json") if not (Path(source) / n).is_file()]):
            raise ValueError(f"{source} holds no {lacking[0]}, so it is no text encoder; give a T5 such as flan-t5-xl.")
        try:
            words = Path(source) / "tokenizer.json" if here else hf_hub_download(str(source), "tokenizer.json")
            with quietly(logging):
                network = T5EncoderModel.from_pretrained(str(source), dtype=dtype, local_files_only=here)
        except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError, SafetensorError) as error:
            raise ValueError(
                f"the text encoder {source} could not be loaded ({str(error).splitlines()[0]}); give a folder or the "
                f"hub id of a T5, such as {PUBLIC_ENCODER}."
            ) from error
        end = cast("int | None", network.config.eos_token_id)
        return cls(Tokenizer.from_file(str(words)), network.eval().to(cast(Any, device)), 1 if end is None else end)

    def save(self, folder: str | Path) -> None:
        """In the layout of transformers, the weights in bfloat16."""
        from transformers import T5EncoderModel
        from transformers.utils import logging

        Path(folder).mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(str(Path(folder) / "tokenizer.json"))
        network: Any = T5EncoderModel(self.network.config)
        network.to(torch.bfloat16)
        network.load_state_dict(self.network.state_dict())
        with quietly(logging):
            network.save_pretrained(folder)

    @property
    def width(self) -> int:
        return self.network.config.d_model

    def ids(self, caption: str) -> list[int]:
        """1 to 120 token ids, the last of which is the end; longer captions are cut, as the authors do."""
        ids = self.tokenizer.encode(clean_caption(caption), add_special_tokens=False).ids
        return [*ids[: CAPTION_SLOTS - 1], self.end]

    @torch.no_grad()
    def states(self, ids: list[int]) -> Tensor:
        """(n, width) features of one caption's ids."""
        found = self.network(input_ids=torch.tensor([ids], device=self.network.device))
        return found.last_hidden_state[0]
