"""Write docs/licences.md: the licence of every package of the environment and of the page's script (make docs)."""

import json
import re
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
COPYLEFT = re.compile(r"\b(A?GPL|LGPL|MPL|EPL|GNU|Mozilla)")
PAGE = """# Licences of what the project uses

Made by `make docs` from the metadata of the {count} packages that `envs/constraints.txt` and `envs/requirements.txt`
pin. The project itself is under the [MIT licence](../LICENSE). None of these packages is part of the repository: `make`
installs them.

The script of the atlas page, `scripts/atlas/report/atlas/bundle.js`, holds parts of these packages of npm (or of those
they need), with their licences at its head: {bundled}.

{copyleft}

`make site` installs more, in an environment of its own (`envs/site.txt`): Sphinx (BSD-2-Clause), MyST-Parser and Furo
(both MIT), and what these need.

| package | licence |
|---|---|
{rows}
"""


def pins() -> list[str]:
    """Names of all pinned packages, in the order of their letters."""
    lines = "\n".join((HERE.parent / "envs" / f"{name}.txt").read_text() for name in ("constraints", "requirements"))
    found = {name.lower().replace("_", "-") for name in re.findall(r"^([A-Za-z0-9._-]+)==", lines, re.MULTILINE)}
    return sorted(found)


def licence(name: str) -> str:
    """What a package says of its licence: the expression, else the short field, else its classifiers, else its file."""
    about = metadata.metadata(name)
    said = about.get("License-Expression") or about.get("License") or ""
    if 0 < len(said) <= 60 and "\n" not in said and said.upper() != "UNKNOWN":
        return said
    classified = [c.rsplit(" :: ", 1)[1] for c in about.get_all("Classifier") or [] if c.startswith("License :: ")]
    classified = [c for c in classified if c != "OSI Approved"]
    if classified:
        return ", ".join(classified)
    files = [f for f in metadata.files(name) or [] if re.search(r"licen[cs]e|copying", f.name, re.IGNORECASE)]
    texts = [said, *(f.locate().read_text(errors="replace") for f in files if f.locate().is_file())]
    for text in texts:
        for words, short in WORDS.items():
            if words in re.sub(r"\s+", " ", text):
                return short
    return "unknown"


def bundled() -> str:
    """Packages that the atlas page's script is built from, by report/atlas/package-lock.json, and their licences."""
    lock = json.loads((HERE.parent / "report" / "atlas" / "package-lock.json").read_text())["packages"]
    found = {path.removeprefix("node_modules/"): about for path, about in lock.items() if path and not about.get("dev")}
    return ", ".join(f"{name} {about['version']} ({about['license']})" for name, about in sorted(found.items()))


WORDS = {  # of a licence's text -> its name
    "Apache License": "Apache-2.0",
    "Permission is hereby granted, free of charge": "MIT",
    "Redistribution and use in source and binary forms": "BSD",
    "GNU LESSER GENERAL PUBLIC LICENSE": "LGPL",
    "GNU GENERAL PUBLIC LICENSE": "GPL",
}


def page() -> str:
    found = {name: licence(name) for name in pins()}
    copyleft = [f"{name} ({text})" for name, text in found.items() if COPYLEFT.search(text)]
    said = "Copyleft, of whatever strength: " + ", ".join(copyleft) + "." if copyleft else "None is copyleft."
    rows = "\n".join(f"| {name} | {text} |" for name, text in found.items())
    return PAGE.format(count=len(found), bundled=bundled(), copyleft=said, rows=rows)


if __name__ == "__main__":
    (HERE / "licences.md").write_text(page())
