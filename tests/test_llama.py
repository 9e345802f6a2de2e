"""Our Llama against the class of transformers, at toy size with random weights."""

import pytest
import torch
from transformers import LlamaConfig as TheirConfig
from transformers import LlamaModel

from reverie.models.llama import KVCache, Llama, LlamaConfig


def pair(kv_heads: int, head_dim: int = 16) -> tuple[LlamaModel, Llama]:
    torch.manual_seed(0)
    sizes = {"vocab_size": 99, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "rope_theta": 500.0}
    heads = {"num_attention_heads": 4, "num_key_value_heads": kv_heads, "head_dim": head_dim, "rms_norm_eps": 1e-5}
    theirs = LlamaModel(TheirConfig(**sizes, **heads)).eval()
    ours = Llama(LlamaConfig(**sizes, **heads)).eval()
    ours.model.load_state_dict(theirs.state_dict())
    return theirs, ours


@pytest.mark.parametrize(("kv_heads", "head_dim"), [(4, 16), (2, 16), (1, 8)])
def test_against_transformers(kv_heads, head_dim):
    theirs, ours = pair(kv_heads, head_dim)
    ids = torch.randint(0, 99, (3, 37))
    mask = torch.ones(3, 37, dtype=torch.bool)
    mask[0, :9] = mask[1, :30] = False
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        plain = theirs(ids).last_hidden_state
        padded = theirs(ids, attention_mask=mask.long(), position_ids=positions).last_hidden_state
        torch.testing.assert_close(ours(ours.embed(ids)), plain, atol=1e-5, rtol=0)
        mine = ours(ours.embed(ids), mask=mask, positions=positions)
    torch.testing.assert_close(mine[mask], padded[mask], atol=1e-5, rtol=0)


def test_gradients_against_transformers():
    theirs, ours = pair(2)
    ids, weights = torch.randint(0, 99, (2, 11)), torch.randn(2, 11, 48)
    (theirs(ids).last_hidden_state * weights).sum().backward()
    (ours(ours.embed(ids)) * weights).sum().backward()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(ours.model.get_parameter(name).grad, parameter.grad, atol=2e-4, rtol=1e-4)


def test_rows_of_different_lengths_share_a_cache():
    """Each row on its own clock, in slots of its own, agrees with a full pass over that row alone."""
    _, ours = pair(2)
    ids, lengths = torch.randint(0, 99, (2, 20)), torch.tensor([5, 9])
    cache = KVCache.empty(ours.config, 2, 32, ours.lm_head.weight, rows=16)
    with torch.no_grad():
        full = ours(ours.embed(ids))
        for row, length in enumerate(lengths.tolist()):
            ours(ours.embed(ids[row : row + 1, :length]), cache=cache.narrow(row, row + 1))
        for step in range(8):
            positions = (lengths + step)[:, None]
            hidden = ours(ours.embed(ids.gather(1, positions)), cache=cache, positions=positions, span=20)
            expected = full.gather(1, positions[..., None].expand(-1, -1, 48))
            torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=0)


def test_bad_head_counts_are_refused():
    with pytest.raises(ValueError, match="multiple of num_key_value_heads"):
        LlamaConfig(9, 8, 8, 1, 4, 3, 2)
