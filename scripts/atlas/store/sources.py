"""What a script or module is made of: itself, the modules of this library and the packages that are imported.

Found by reading import statements, so that no list has to be kept by hand. A package that imports its modules by their
names, with importlib, is made of all of them; a template beside a module under the same name (`lens_page.html` of
`lens_page.py`) is part of it. Parsed by Snakemake in every job: nothing heavy is imported here.
"""

import ast
import functools
import hashlib
import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]  # the folder of the workflow, wherever its jobs run
SCRIPTS = ROOT / "scripts"
# Another version of one of these may change what a job writes
PACKAGES: tuple[str, ...] = (
    "torch",
    "transformers",
    "transformer_lens",
    "tokenizers",
    "gguf",
    "safetensors",
    "numpy",
    "pandas",
    "pyarrow",
)
PACKAGES += ("matplotlib", "jinja2")


@dataclass(frozen=True)
class Sources:
    """Files by their path below the workflow's folder, with the SHA-256 of each; and those of PACKAGES they import."""

    files: dict[str, str]
    packages: tuple[str, ...]

    def versions(self) -> dict[str, str | None]:
        return {package: installed(package) for package in self.packages}

    def digest(self, environment: object = None) -> str:
        """16 hexadecimal digits of all files and of the versions of all packages.

        ``environment``: what stands for the versions where jobs run in another environment than this process.
        """
        content = sorted(self.files.items()), self.versions() if environment is None else environment
        return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def of(*paths: Path | str) -> Sources:
    """Sources of files, given by their paths (from the workflow's folder), and of all that they import."""
    files: dict[str, str] = {}
    packages: set[str] = set()
    queue = [ROOT / path for path in paths]
    while queue:
        path = queue.pop()
        name = path.relative_to(ROOT).as_posix()
        if name in files:
            continue
        files[name], imported, foreign = read(path)
        packages |= foreign
        queue += imported
    return Sources(files, tuple(package for package in PACKAGES if package in packages))


@functools.cache
def installed(package: str) -> str | None:
    """Its version; None where this process does not have it."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def read(path: Path) -> tuple[str, list[Path], frozenset[str]]:
    """SHA-256 of a source file; its template and the files of this library, and those of PACKAGES, that it imports."""
    source = path.read_text()
    names = imports(source) if path.suffix == ".py" else set()
    own = dict.fromkeys(file for name in sorted(names) for file in files_of(name))
    own |= dict.fromkeys(file for folder in path.parents if (file := folder / "__init__.py").is_file())
    if path.name == "__init__.py" and "importlib" in names:
        own |= dict.fromkeys(sorted(path.parent.glob("*.py")))
    own |= dict.fromkeys(file for file in [path.with_suffix(".html")] if file.is_file())
    foreign = frozenset(name.split(".")[0] for name in names) & set(PACKAGES)
    return hashlib.sha256(source.encode()).hexdigest(), list(own), foreign


def imports(source: str) -> set[str]:
    """Dotted names that a source imports, at its head or within functions; of ``from a import b`` both a and a.b.

    Imports under ``if TYPE_CHECKING:`` never run, and do not count.
    """
    names: set[str] = set()
    queue: list[ast.AST] = list(ast.parse(source).body)
    while queue:  # statements only: expressions hold no imports, and are most of a tree
        node = queue.pop()
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        typing_only = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        fields: Iterable[str] = ("body", "orelse", "handlers", "finalbody", "cases")
        for field in ("orelse",) if typing_only else fields:
            queue += getattr(node, field, [])
    return names


def files_of(name: str) -> list[Path]:
    """The files of this library that run when a dotted name is imported: the packages it lies in, and its module."""
    parts = name.split(".")
    packages = [SCRIPTS.joinpath(*parts[:end], "__init__.py") for end in range(1, len(parts) + 1)]
    return [file for file in (*packages, SCRIPTS.joinpath(*parts).with_suffix(".py")) if file.is_file()]
