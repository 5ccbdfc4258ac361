"""The gallery: every figure of the default study with its caption and the command that draws it."""

import importlib.util
import re

import pytest
import yaml
from PIL import Image

from atlas.core.errors import StudyError
from atlas.report import captions, contents, style
from conftest import ROOT
from study import in_clone

SPEC = importlib.util.spec_from_file_location("build_gallery", ROOT / "docs" / "build_gallery.py")
gallery = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(gallery)
PAGE = ROOT / "docs" / "gallery.md"
SHOWN = [row for row in contents.SHOWN if not row.page and row.name not in gallery.MISSING]


@pytest.fixture
def results(tmp_path, config):
    """A study of two tasks whose figures are empty, with their captions."""
    for row in SHOWN:
        for name in ("b", "a", *(["shared"] if row.wildcard == "circuit" else [])):
            wildcards = {"model": "m", row.wildcard: name}
            said = captions.of(row, ROOT, wildcards, config)
            file = tmp_path / row.path.format(model="m", task=name, circuit=name)
            file.parent.mkdir(parents=True, exist_ok=True)
            if not file.exists():
                style.save(style.figure(1, 0.2, layout=None), file, dpi=30, **said)
    for name in (page.format(model="m") for page in gallery.PAGES):
        (tmp_path / "results" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / name).write_text(f"<title>{name}</title>")
    return tmp_path / "results"


def test_the_page_holds_every_figure_with_its_caption_and_command(results, tmp_path, config):
    size = gallery.write(results, "m", tmp_path / "docs")
    text = (tmp_path / "docs" / "gallery.md").read_text()
    written = [path for path in (tmp_path / "docs").rglob("*") if path.is_file() and path.suffix != ".md"]
    assert size == sum(path.stat().st_size for path in written)
    for name in (page.format(model="m") for page in gallery.PAGES):
        assert (tmp_path / "docs" / gallery.SAMPLE / name).read_text() == (results / name).read_text()
        assert f"({gallery.SAMPLE}/{name})" in text
    for row in SHOWN:
        name = {"circuit": "shared", "task": "a"}.get(row.wildcard, "")
        target = row.path.format(model="m", task=name, circuit=name)
        said = captions.of(row, ROOT, {"model": "m", row.wildcard: name}, config)
        assert f"snakemake --cores 2 {target}\n" in text
        assert said["caption"] in text and f"![{said['title']}](images/gallery/{row.name}.png)" in text
        assert (tmp_path / "docs" / gallery.PICTURES / f"{row.name}.png").is_file()


def test_a_missing_figure_and_one_without_caption_are_refused(results, tmp_path):
    file = results / "figures" / "m" / "m.overlap.svg"
    style.save(style.figure(1, 0.2, layout=None), file)
    with pytest.raises(StudyError, match=r"m\.overlap\.svg: holds no title or caption"):
        gallery.write(results, "m", tmp_path / "docs")
    file.unlink()
    with pytest.raises(StudyError, match=r"m\.overlap\.svg: no such figure; run the study first"):
        gallery.write(results, "m", tmp_path / "docs")


def test_a_missing_page_is_refused(results, tmp_path):
    (results / "m" / "atlas.html").unlink()
    with pytest.raises(StudyError, match=r"m/atlas\.html: no such page; run the study first"):
        gallery.write(results, "m", tmp_path / "docs")


def test_a_picture_is_small_and_keeps_its_shape(tmp_path):
    Image.effect_noise((1720, 860), 60).convert("RGB").save(tmp_path / "a.png")
    gallery.small(tmp_path / "a.png", tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as copy:
        assert copy.size == (gallery.WIDE, gallery.WIDE // 2) and copy.mode == "P"


def test_the_committed_page_is_that_of_the_table_and_small():
    """Its commands, one for each figure, draw what the table says; the pictures are those that it shows."""
    text = PAGE.read_text()
    targets = re.findall(r"^snakemake --cores 2 results/figures/ladder-6x8/ladder-6x8\.(\S+)\.svg$", text, re.MULTILINE)
    assert [target.rpartition(".")[2] for target in targets] == [
        row.name for category in dict.fromkeys(r.category for r in SHOWN) for row in SHOWN if row.category == category
    ]
    pictures = sorted((ROOT / "docs" / gallery.PICTURES).glob("*.png"))
    assert [path.name for path in pictures] == sorted(re.findall(rf"\({gallery.PICTURES}/(\S+)\)", text))
    assert sum(path.stat().st_size for path in pictures) <= gallery.SIZE
    pages = [path for path in (ROOT / "docs" / gallery.SAMPLE).rglob("*") if path.is_file()]
    names = {path.relative_to(ROOT / "docs" / gallery.SAMPLE).as_posix() for path in pages}
    assert names == {page.format(model="ladder-6x8") for page in gallery.PAGES}
    assert sum(path.stat().st_size for path in [*pictures, *pages]) <= gallery.ALL


@pytest.mark.slow
def test_every_command_of_the_page_is_planned(cloned):
    files = re.findall(r"^snakemake --cores 2 (\S+)$", PAGE.read_text(), re.MULTILINE)
    assert yaml.safe_load((cloned / "config.yaml").read_text())
    done = in_clone(cloned, f"snakemake --cores 2 --dry-run {' '.join(files)}")
    assert done.returncode == 0, done.stdout + done.stderr
