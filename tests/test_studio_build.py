"""The studio's page as it is shipped: built from its present source, small, and complete in itself."""

import hashlib
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "studio-page"
BUILT = ROOT / "src" / "reverie" / "studio" / "page"


def test_the_page_is_built_from_its_present_source():
    """The digest of vite.config.js, computed anew; `npm ci && npm run build` in studio-page/ repairs it."""
    tops = ("index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.js")
    sources = [SOURCE / name for name in tops] + [path for path in (SOURCE / "src").rglob("*") if path.is_file()]
    digest = hashlib.sha256()
    for name, path in sorted((path.relative_to(SOURCE).as_posix(), path) for path in sources):
        digest.update(name.encode() + b"\0" + path.read_bytes())
    assert json.loads((BUILT / "sources.json").read_text())["sha256"] == digest.hexdigest()


def test_the_page_is_small_whole_and_fetches_nothing_from_elsewhere():
    files = [path for path in BUILT.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 200_000
    assert not [path for path in files if path.suffix == ".map"]
    html = (BUILT / "index.html").read_text("utf-8")
    for target in re.findall(r'(?:src|href)="([^"]+)"', html):
        assert (BUILT / target).is_file(), f"index.html refers to {target}, which is not there"
    for path in files:
        if path.suffix in (".html", ".css", ".js"):
            there = set(re.findall(r"https?://[\w.-]+", path.read_text("utf-8")))
            assert there <= {"http://www.w3.org"}, f"{path.name} names {there}"  # the names of SVG and XHTML


def test_the_lock_file_says_what_and_not_where_from():
    packages = json.loads((SOURCE / "package-lock.json").read_text())["packages"]
    assert all("resolved" not in package for package in packages.values())
    assert all("integrity" in package for path, package in packages.items() if path)
