"""The library's packages import only from those before them; nothing in them is long, or public without a docstring."""

import ast
import runpy
from pathlib import Path

import pytest

import atlas
from atlas.store import sources
from conftest import ROOT

LIBRARY = ROOT / "scripts" / "atlas"
ORDER = atlas.PACKAGES  # each may import from itself and from those before it
MODULES = sorted(path for path in LIBRARY.rglob("*.py") if path.name != "__init__.py")
MAX_MODULE, MAX_FUNCTION = 400, 60


def package(path: Path) -> str:
    return path.relative_to(LIBRARY).parts[0]


def named(path: Path) -> str:
    return path.relative_to(LIBRARY).as_posix()


def test_every_package_has_its_place_and_says_what_belongs_there():
    assert sorted(folder.name for folder in LIBRARY.iterdir() if folder.is_dir() and folder.name != "__pycache__") == (
        sorted(ORDER)
    )
    for name in ORDER:
        assert len(ast.get_docstring(ast.parse((LIBRARY / name / "__init__.py").read_text())) or "") > 40, name


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_imports_only_from_packages_before_its_own(path):
    """Imports within functions count; those for type checking alone too, so that no name runs against the order."""
    found = {file for name in every_import(path) for file in sources.files_of(name)}
    wrong = [named(file) for file in found if file.parent != LIBRARY and place(file) > place(path)]
    assert not wrong, f"{named(path)} imports {', '.join(sorted(wrong))}"


def place(path: Path) -> int:
    return ORDER.index(package(path))


def every_import(path: Path) -> set[str]:
    """As `sources.imports`, with those under ``if TYPE_CHECKING:``."""
    return sources.imports(path.read_text().replace("if TYPE_CHECKING:", "if True:"))


def test_no_modules_import_each_other_in_a_circle():
    waiting = {
        path: {f for name in every_import(path) for f in sources.files_of(name)} & set(MODULES) - {path}
        for path in MODULES
    }
    while ready := [path for path, needs in waiting.items() if not needs & waiting.keys()]:
        for path in ready:
            del waiting[path]
    assert not waiting, sorted(map(named, waiting))


def functions(path: Path) -> list[ast.FunctionDef]:
    return [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))


@pytest.mark.parametrize("path", [*MODULES, *SCRIPTS], ids=lambda path: path.relative_to(ROOT / "scripts").as_posix())
def test_modules_and_functions_are_short(path):
    """A longer function says why on the line of its ``def``: `# long: ...`."""
    lines = path.read_text().splitlines()
    assert len(lines) <= MAX_MODULE
    for node in functions(path):
        size = node.end_lineno - node.lineno + 1
        assert size <= MAX_FUNCTION or "# long: " in lines[node.lineno - 1], f"{node.name}: {size} lines"


@pytest.mark.parametrize("path", sorted(LIBRARY.rglob("*.py")), ids=named)
def test_public_functions_and_classes_say_what_they_are(path):
    """Those of a module itself; methods are left to whoever writes them."""
    public = [
        node
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    silent = [node.name for node in public if not ast.get_docstring(node)]
    assert not silent, f"{named(path)}: no docstring of {', '.join(silent)}"


def test_the_picture_of_the_house_is_that_of_today():
    """`make docs` draws it anew."""
    build = runpy.run_path(str(ROOT / "docs" / "build_house.py"))
    assert build["PICTURE"].read_text() == build["picture"]()
