"""The Atelier's text tokenizer: a byte-level BPE, trained on what the Atelier says, with the special tokens of a model
(those of Janus by default)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from ..models.janus_text import ASSISTANT, BOS, EOS, IMAGE_END, IMAGE_START, PAD, PLACEHOLDER, USER

SPECIAL = (BOS, EOS, PAD, IMAGE_START, PLACEHOLDER, IMAGE_END, USER, ASSISTANT)


def train_words(texts: Iterable[str], size: int = 2048, special: Sequence[str] = SPECIAL) -> Tokenizer:
    """A tokenizer of `size` entries in which the commonest words of `texts` are one token each."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer
