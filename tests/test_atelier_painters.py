"""The other painters of the Atelier as they are shipped: small, known by name, sharing one tokenizer and its codes."""

from pathlib import Path

import pytest
import torch

import reverie
from reverie.models.registry import entries, weights_in

NAMES = ("atelier-showo", "atelier-llamagen")
MIB = 2**20

pytestmark = pytest.mark.skipif(
    not all(Path(entries()[name].folder or "").is_dir() for name in NAMES),
    reason="the weights are not in this installation",
)


@pytest.mark.parametrize("name", NAMES)
def test_they_are_small_and_say_what_they_are(name):
    folder = entries()[name].folder
    assert folder is not None
    assert sum(path.stat().st_size for path in weights_in(folder)) < 9 * MIB
    assert (folder / "README.md").read_text("utf-8").startswith(f"# {name}")


def test_painters_share_the_codes_of_atelier_janus():
    janus = reverie.load("atelier-janus", device="cpu").model
    codes = torch.arange(144)[None] * 14
    wanted = janus.decode_codes(codes)
    showo, llamagen = (reverie.load(name, device="cpu").model for name in NAMES)
    # The network of transformers and our own round differently.
    torch.testing.assert_close(showo.pictures.decode(codes), wanted, atol=1e-4, rtol=0)
    assert torch.equal(llamagen.decode_codes(codes), wanted)
