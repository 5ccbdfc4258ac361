"""What a script is made of is found by reading imports: oracles are small sources, and what Python really imports."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.store import sources
from conftest import ROOT

SCRIPTS = sorted(path.name for path in (ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import a.b, c", {"a.b", "c"}),
        ("from a import b, c", {"a", "a.b", "a.c"}),
        (
            "def f():\n    try:\n        import a\n    except E:\n        import b\n    finally:\n        import c",
            set("abc"),
        ),
        ("if TYPE_CHECKING:\n    import a\nelse:\n    import b", {"b"}),
        ("match x:\n    case 1:\n        import a", {"a"}),
        ("with x:\n    for y in z:\n        import a", {"a"}),
        ("async def f():\n    while x:\n        from a import b as c", {"a", "a.b"}),
        ("x = 'import a'  # import b", set()),
    ],
)
def test_imports_are_found_wherever_they_stand(source, names):
    assert sources.imports(source) == names


NAMES = st.sampled_from(["torch", "numpy.linalg", "atlas.model.engine", "os"])


@given(st.lists(st.tuples(NAMES, st.integers(0, 3)), max_size=6))
def test_imports_are_found_at_any_depth(wanted):
    lines = [
        "\n".join([*("    " * d + f"if x{i}{d}:" for d in range(depth)), "    " * depth + f"import {name}"])
        for i, (name, depth) in enumerate(wanted)
    ]
    assert sources.imports("\n".join(lines)) == {name for name, _ in wanted}


@pytest.mark.parametrize("module", ["circuit.ablation", "report.summary", "report.maps", "store.memo"])
def test_nothing_that_an_import_really_loads_is_missing(module):
    """Python's own list of loaded modules is the oracle: all of ours, and of PACKAGES those that ours name."""
    code = f"import sys, atlas.{module}; print(*(getattr(m, '__file__', '') or '' for m in sys.modules.values()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True, check=True
    )
    own = {name for name in done.stdout.split() if name.startswith(str(ROOT / "scripts"))}
    found = sources.of(f"scripts/atlas/{module.replace('.', '/')}.py")
    assert {str(ROOT / name) for name in found.files} >= own


@pytest.mark.parametrize("by_name", [True, False])
def test_a_package_that_imports_its_modules_by_name_is_made_of_all_of_them(tmp_path, monkeypatch, by_name):
    """And of one that is added to its folder later; a package that names what it imports is made of that."""
    monkeypatch.setattr(sources, "ROOT", tmp_path)
    monkeypatch.setattr(sources, "SCRIPTS", tmp_path / "scripts")
    own = tmp_path / "scripts" / "kinds"
    own.mkdir(parents=True)
    (own / "__init__.py").write_text("import importlib\n" if by_name else "from kinds import one\n")
    (own / "one.py").write_text("import torch\n")
    (own / "two.py").write_text("import numpy\n")
    (tmp_path / "scripts" / "job.py").write_text("def run():\n    from kinds import one\n")
    found = sources.of("scripts/job.py")
    names = {"__init__", "one", "two"} if by_name else {"__init__", "one"}
    assert set(found.files) == {"scripts/job.py", *(f"scripts/kinds/{name}.py" for name in names)}
    assert found.packages == (("torch", "numpy") if by_name else ("torch",))


def test_every_family_is_part_of_what_loads_a_model():
    from atlas.model import families

    found = sources.of("scripts/check_model.py", "scripts/score_clean.py").files
    assert {f"scripts/atlas/model/families/{name}.py" for name in families.names()} <= set(found)
    for figure in (name for name in SCRIPTS if name.startswith("plot_")):
        assert not any("model/families" in file for file in sources.of(f"scripts/{figure}").files)


def test_the_template_beside_a_module_is_part_of_it_and_of_no_other():
    page = sources.of("scripts/write_head_pages.py").files
    templates = {Path(name).name for name in page if name.endswith(".html")}
    assert templates == {f"{name}.html" for name in ("frame", "head_cards", "pattern_page", "lens_page")}
    assert not any(name.endswith(".html") for name in sources.of("scripts/atlas/report/maps.py").files)
    every = {path for path in (ROOT / "scripts").rglob("*.html")}
    assert every and all(path.with_suffix(".py").is_file() for path in every)


def test_a_digest_changes_with_any_file_or_version_and_with_nothing_else(monkeypatch):
    one = sources.Sources({"a": "1", "b": "2"}, ("torch",))
    assert one.digest() == sources.Sources({"b": "2", "a": "1"}, ("torch",)).digest()
    assert len({one.digest(), sources.Sources({"a": "1", "b": "3"}, ("torch",)).digest(), one.digest("conda")}) == 3
    before = one.digest()
    monkeypatch.setattr(sources, "installed", lambda name: "99.0")
    assert one.digest() != before and one.digest("conda") == one.digest("conda")


def test_no_path_of_a_machine_is_part_of_it():
    for name in SCRIPTS:
        assert not any(file.startswith("/") for file in sources.of(f"scripts/{name}").files)


def test_it_imports_nothing_heavy():
    code = "import sys, atlas.store.sources, atlas.store.places; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True, check=True
    )
    assert not {"torch", "pandas", "numpy", "transformers", "huggingface_hub"} & set(done.stdout.split())
