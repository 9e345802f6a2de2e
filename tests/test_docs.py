"""The Python of the documentation runs: the blocks of a page one after the other, as a reader would type them."""

import re
from pathlib import Path

import pytest

from reverie.models.registry import entries

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Which shipped models a page needs; the others need none.
NEEDS = {
    "README.md": ("atelier-janus",),
    "docs/python.md": ("atelier-janus", "atelier-showo"),
    "docs/choose.md": ("atelier-janus", "atelier-inspector"),
    "docs/during.md": ("atelier-janus",),
    "docs/pictures.md": ("atelier-janus", "atelier-inspector"),
    "docs/evaluation.md": ("atelier-inspector",),
}


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page, tmp_path, monkeypatch):
    text = (ROOT / page).read_text("utf-8")
    found = list(BLOCK.finditer(text))
    if not found:
        pytest.skip(f"{page} has no Python in it")
    for name in NEEDS.get(page, ()):
        folder = entries()[name].folder
        if folder is None or not folder.is_dir():
            pytest.skip(f"{page} needs the weights of {name}, which are not in this installation")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__docs__"}
    for block in found:
        # Blank lines in front, so that an error names the line of the page.
        before = "\n" * (text.count("\n", 0, block.start()) + 1)
        exec(compile(before + block[1], page, "exec", dont_inherit=True), names)
