"""A tiny random Janus as a checkpoint folder, for tests that go through the front door."""

import json
from pathlib import Path

from janus_toy import toy_janus

from reverie.models.janus_checkpoint import save_janus


def tiny_folder(folder: Path, context: int = 512, thinker: str = "atelier") -> Path:
    """Writes the checkpoint; `context` is how many tokens it reads at most."""
    model, tokenizer = toy_janus()
    save_janus(model, tokenizer, folder)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["language_config"]["max_position_embeddings"] = context
    config["reverie"] = {"thinker": thinker}
    path.write_text(json.dumps(config))
    return folder
