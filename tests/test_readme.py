"""README and docs as tests: commands parse, links lead somewhere, the map is complete, CI runs what the README says."""

import re
import shlex
import shutil
import subprocess
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from reverie.cli import build_parser

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text("utf-8")) if kind == language]


def commands(text: str) -> list[list[str]]:
    """The words of every simple command in shell text: lines are joined at a backslash and split at &&."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            found.append(words[:end])
            words = words[end + 1 :]
    return [words for words in found if words]


def arguments(words: list[str]) -> list[str] | None:
    """What follows `reverie` in a command, however it is started; None if it starts something else."""
    if Path(words[0]).name == "reverie":
        return words[1:]
    pair = next((i for i in range(len(words) - 1) if words[i : i + 2] == ["-m", "reverie"]), None)
    return None if pair is None else words[pair + 2 :]


REVERIE = [
    pytest.param(rest, id=f"{name(page)}: {' '.join(rest)[:60]}")
    for page in PAGES
    for text in blocks(page, "bash")
    for words in commands(text)
    if (rest := arguments(words)) is not None
]


@pytest.mark.parametrize("words", REVERIE)
def test_commands_are_accepted(words):
    parsed = build_parser().parse_args(words)
    if parsed.command == "train":
        assert (ROOT / parsed.recipe).is_file(), f"{parsed.recipe} is not there"
        assert all("=" in override for override in parsed.overrides)


def test_there_are_commands_to_accept():
    assert len(REVERIE) > 10


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    prose = BLOCK.sub("", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{name(page)} refers to {target}, which is not there"
        if anchor:
            heads = re.findall(r"^#+ (.*)$", file.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}
            assert anchor in slugs, f"{name(page)} refers to {target}, but there is no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_shell_blocks_are_valid_bash(page):
    for text in blocks(page, "bash"):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_the_map_names_every_module_and_nothing_else():
    (tree,) = blocks(ROOT / "README.md", "text")
    package = ROOT / "src" / "reverie"
    there = {path.name for path in package.glob("*.py")}
    there |= {f"{path.parent.name}/" for path in package.glob("*/*.py")}
    mapped = re.findall(r"^  (\S+)", tree.split("recipes/")[0], re.MULTILINE)
    assert sorted(mapped) == sorted(there)
    for top in re.findall(r"^(\S+)", tree, re.MULTILINE):
        assert (ROOT / top).exists(), f"the map names {top}, which is not there"


def test_the_entry_point_can_be_called():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for target in project["scripts"].values():
        module, _, attribute = target.partition(":")
        assert callable(getattr(import_module(module), attribute))


def test_every_direct_requirement_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    for requirement in wanted:
        assert re.match(r"[\w-]+", requirement)[0].lower() in pins, f"constraints.txt does not pin {requirement}"
    assert "+" not in pins["torch"], "a local version of torch would shut out the wheels of PyPI"


def test_ci_runs_the_command_of_the_readme(tmp_path):
    """In a copy whose README says `echo`, CI echoes; in ours, the command ends with the tests."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci" / "run")
    readme = (ROOT / "README.md").read_text("utf-8")
    (command,) = re.findall(r"^<!-- ci: test -->\n```bash\n(.*?)\n```$", readme, re.MULTILINE | re.DOTALL)
    assert command.endswith(" && .venv/bin/pytest -n 2 --dist loadfile")
    (tmp_path / "README.md").write_text(readme.replace(command, "true && echo tested"), "utf-8")
    ran = subprocess.run([tmp_path / ".ci" / "run"], capture_output=True, text=True, check=True)
    assert ran.stdout == "true && echo tested\ntested\n"
    (tmp_path / "README.md").write_text(readme.replace(command, "false && true"), "utf-8")
    assert subprocess.run([tmp_path / ".ci" / "run"], capture_output=True, check=False).returncode != 0
