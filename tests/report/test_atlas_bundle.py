"""The committed script of the atlas page is the bundle of its sources."""

import hashlib
import re
import shutil
import subprocess

import pytest

from conftest import ROOT

SOURCE = ROOT / "report" / "atlas"
BUNDLE = ROOT / "scripts" / "atlas" / "report" / "atlas" / "bundle.js"


def test_the_bundle_is_of_these_sources():
    """By the digest in its first line, as build.mjs takes it."""
    digest = hashlib.sha256()
    modules = sorted(path.name for path in (SOURCE / "src").glob("*.js"))
    for path in ("package-lock.json", *(f"src/{name}" for name in modules)):
        digest.update(path.encode() + b"\0" + (SOURCE / path).read_bytes() + b"\0")
    said = re.match(r"/\* sources sha256:([0-9a-f]{64})\n", BUNDLE.read_text())
    assert said and said[1] == digest.hexdigest(), "run `npm ci && npm run build` in report/atlas"


def test_the_bundle_is_what_esbuild_makes(tmp_path):
    if not (SOURCE / "node_modules").is_dir() or not shutil.which("node"):
        pytest.skip("node_modules are not here: `npm ci` in report/atlas installs them")
    made = tmp_path / "bundle.js"
    subprocess.run(["node", "build.mjs", str(made)], cwd=SOURCE, check=True)
    assert made.read_bytes() == BUNDLE.read_bytes(), "run `npm run build` in report/atlas"


def test_the_bundle_carries_the_licences_of_what_is_in_it():
    head = BUNDLE.read_text().split("*/", 1)[0]
    for name in ("d3-selection", "d3-scale", "d3-shape", "d3-zoom", "d3-ease", "d3-color"):
        assert re.search(rf"\b{name} \d+\.\d+\.\d+", head), name
    for text in ("Permission to use, copy, modify", "Redistributions in binary form must reproduce"):
        assert text in head


def test_the_page_asks_for_nothing_from_outside():
    """No address in the sources but the name spaces of SVG."""
    for path in (*(SOURCE / "src").glob("*.js"), *BUNDLE.parent.glob("page.*")):
        if path.suffix != ".py":
            found = set(re.findall(r"https?://[^\s\"'`)]+", path.read_text()))
            assert found <= {"http://www.w3.org/2000/svg"}, path.name
