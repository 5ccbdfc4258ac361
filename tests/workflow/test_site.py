"""The documents as a site (`make site`): every page is in the menu, and a link that leads nowhere is an error."""

import subprocess
import sys
from pathlib import Path

import pytest

from conftest import ROOT

pytestmark = pytest.mark.slow
OWN = ROOT / ".venv-site" / "bin" / "python"  # of `make site`


@pytest.fixture(scope="module")
def python() -> str:
    """An interpreter that has Sphinx: of `make site`, or the one that runs the tests."""
    for found in (str(OWN), sys.executable):
        needed = [found, "-c", "import furo, myst_parser, sphinx"]
        if Path(found).exists() and not subprocess.run(needed, capture_output=True).returncode:
            return found
    pytest.skip("Sphinx is not here: `make site` installs it, in .venv-site")


def built(python: str, root: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """As `make site` builds it, of the pages below ``root``."""
    command = [python, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", str(ROOT / "docs" / "site")]
    command += ["-d", str(folder / "doctrees"), str(root), str(folder / "html")]
    return subprocess.run(command, capture_output=True, text=True)


def test_all_documents_are_pages_that_link_to_each_other(python, tmp_path):
    done = built(python, ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    html = tmp_path / "html"
    documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/*.ipynb")]
    pages = [file.relative_to(ROOT).with_suffix(".html") for file in documents]
    front = (html / "README.html").read_text()
    assert all((html / page).is_file() for page in pages)
    assert [page for page in pages if f'href="{page.as_posix()}"' not in front and page.stem != "README"] == []
    assert "url=README.html" in (html / "index.html").read_text()
    notebook = (html / "docs" / "notebook.html").read_text()
    assert "<svg" in notebook and 'src="data:image/png;base64,' in notebook
    remote = [
        f for f in html.rglob("*.html") for tag in ("<script src", "<link rel") if f'{tag}="http' in f.read_text()
    ]
    assert not remote, "pages ask for nothing outside"


LINKS = ("nowhere.md", "#no-such-heading", "docs/other.md#no-such-heading", "docs/no_file.yaml")


@pytest.mark.parametrize("link", LINKS)
def test_a_link_that_leads_nowhere_fails(python, tmp_path, link):
    root = tmp_path / "root"
    (root / "docs").mkdir(parents=True)
    (root / "docs" / "other.md").write_text("# Other\n")
    for text, fails in (("[there](docs/other.md#other)", False), (f"[there]({link})", True)):
        (root / "README.md").write_text(f"# Title\n\n{text}\n")
        done = built(python, root, tmp_path / str(fails))
        assert bool(done.returncode) == fails, done.stderr
