"""The vision tower and the VQ network against the classes of transformers, at toy size with random weights."""

from dataclasses import asdict

import pytest
import torch
from janus_toy import toy_config
from torch import nn
from transformers import JanusVisionConfig, JanusVisionModel, JanusVQVAE, JanusVQVAEConfig

from reverie.models.janus import Janus, JanusConfig
from reverie.models.siglip import Tower, TowerConfig
from reverie.models.vq16 import VQ16, VQConfig


def scatter(network: nn.Module) -> None:
    """Large random weights everywhere, norms and biases included, so that no term can hide."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)


def test_the_tower_against_transformers():
    config = TowerConfig(
        hidden_size=48, num_hidden_layers=3, num_attention_heads=4, image_size=32, patch_size=8, mlp_ratio=2.6
    )
    theirs, ours = JanusVisionModel(JanusVisionConfig(**asdict(config))).eval(), Tower(config)
    scatter(theirs)
    ours.load_state_dict(theirs.state_dict())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    pixels = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(pixels), theirs(pixels).last_hidden_state, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("multipliers", "blocks"), [((1, 1), 1), ((1, 2, 3), 2), ((2,), 1)])
def test_the_vq_network_against_transformers(multipliers, blocks):
    """Values, gradients, and the order of parameters: optimizers and averages are saved by it."""
    config = VQConfig(
        num_embeddings=20, latent_channels=32, base_channels=32, channel_multiplier=multipliers, num_res_blocks=blocks
    )
    theirs, ours = JanusVQVAE(JanusVQVAEConfig(**asdict(config))), VQ16(config)
    scatter(theirs)
    ours.load_state_dict(theirs.state_dict())
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    pixels = torch.randn(2, 3, 16, 16)
    for network in (ours, theirs):
        latents = network.quant_conv(network.encoder(pixels))
        network.painted = network.decoder(network.post_quant_conv(latents))
        network.painted.square().mean().backward()
    torch.testing.assert_close(ours.painted, theirs.painted, atol=1e-4, rtol=1e-4)
    for name, parameter in ours.named_parameters():
        expected = theirs.get_parameter(name).grad
        if expected is not None:  # nothing looks into the codebook here
            torch.testing.assert_close(parameter.grad, expected, atol=1e-4, rtol=1e-2, msg=name)


def test_fresh_weights_are_drawn_as_transformers_draws_them():
    ours = VQ16(VQConfig(num_embeddings=20, latent_channels=32, base_channels=32, channel_multiplier=(1, 2)))
    for name, parameter in ours.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert (parameter == 1).all(), name
        elif parameter.numel() > 1000:
            assert 0.018 < parameter.std() < 0.022, name


def test_a_config_of_transformers_may_leave_out_its_defaults():
    data = toy_config()
    see, codes = {"hidden_size": 32, "dropout": 0.5}, {"num_embeddings": 48, "initializer_range": 0.1}
    config = JanusConfig.from_dict(
        {
            "model_type": "janus",
            "text_config": data["language_config"],
            "vision_config": see | {"num_attention_heads": 2, "num_hidden_layers": 1},
            "vq_config": codes | {"base_channels": 32},
        }
    )
    assert config.vision.patch_size == JanusVisionConfig().patch_size
    assert tuple(config.vq.channel_multiplier) == tuple(JanusVQVAEConfig().channel_multiplier)
    with torch.device("meta"):
        assert Janus(config).vqmodel.config.num_embeddings == 48
