"""Write docs/configuration.md from the schema, so that the reference page cannot differ from what is checked."""

import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from atlas.prompts import generator  # noqa: E402
from atlas.study.names import NAMES, filled  # noqa: E402

INTRODUCTION = """# Configuration

`config.yaml` is the default study. Change it, or lay another file over it: `snakemake --cores 2 --configfile
presets/smoke.yaml` merges the preset's keys into the defaults, block by block (lists are replaced as a whole). Keys
and blocks go on the command line too: `--config layers=2 weights=random 'study={"tasks": ["numerals"]}'`; numbers,
true, false and null in a block are read as such wherever the key takes no text. Everything is checked before any job
starts, and unknown keys are refused. This page is made from `schemas/config.schema.yaml` by `make docs`.
"""


def resolve(schema: dict, node: dict) -> dict:
    """A node with its `$ref` replaced by what it points to; the node's own words come first."""
    if "$ref" not in node:
        return node
    target = schema
    for part in node["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return resolve(schema, target) | {k: v for k, v in node.items() if k != "$ref"}


def allowed(schema: dict, node: dict) -> str:
    """What values a key takes, in a few words."""
    node = resolve(schema, node)
    if "enum" in node:
        return ", ".join(f"`{v}`" for v in node["enum"])
    types = node.get("type", "")
    kinds = types if isinstance(types, list) else [types]
    words = []
    for kind in kinds:
        if kind == "array" and "items" in node:
            words.append(f"list of {allowed(schema, node['items'])}")
        elif kind == "string" and "enum" in node.get("then", {}):
            words.append(", ".join(f"`{v}`" for v in node["then"]["enum"]))
        elif kind == "object" and "properties" in node.get("else", node):
            words.append("{" + ", ".join(node.get("else", node)["properties"]) + "}")
        else:
            words.append({"object": "block"}.get(kind, kind))
    bounds = [
        f"{sign} {node[w]}"
        for w, sign in (
            ("minimum", ">="),
            ("exclusiveMinimum", ">"),
            ("maximum", "<="),
            ("exclusiveMaximum", "<"),
        )
        if w in node
    ]
    return " or ".join(words) + (f" {' and '.join(bounds)}" if bounds else "")


def rows(schema: dict, properties: dict, prefix: str = "") -> list[str]:
    """Table rows of a block's keys, nested blocks with dotted names."""
    out = []
    for key, node in properties.items():
        node = resolve(schema, node)
        if node.get("type") == "object" and "properties" in node and not node.get("description"):
            out += rows(schema, node["properties"], f"{prefix}{key}.")
            continue
        words = node.get("description", "")
        if "default" in node:
            words += f" Default: `{node['default']}`."
        out.append(f"| `{prefix}{key}` | {allowed(schema, node)} | {words} |".replace("  ", " "))
        if node.get("type") == "object" and "properties" in node:
            out += rows(schema, node["properties"], f"{prefix}{key}.")
    return out


def of_generators(schema: dict) -> list[str]:
    """A table for every generator with keys of its own."""
    lines = []
    for name in generator.names():
        keys = generator.of({"generator": name}).keys
        if keys:
            lines += [f"Keys of a task with `generator: {name}`:", "", "| key | values | meaning |", "|---|---|---|"]
            lines += [*rows(schema, dict(keys)), ""]
    return lines


def page() -> str:
    schema = filled(yaml.safe_load((ROOT / "schemas" / "config.schema.yaml").read_text()))
    lines = [INTRODUCTION]
    single = {name: node for name, node in schema["properties"].items() if node.get("type", "string") != "object"}
    lines += ["## Single keys", "", "| key | values | meaning |", "|---|---|---|", *rows(schema, single), ""]
    for name, node in schema["properties"].items():
        if name in single:
            continue
        lines += [f"## `{name}`", ""] + ([node["description"], ""] if "description" in node else [])
        properties = node.get("properties") or node["additionalProperties"]["properties"]
        if name == "tasks":  # the keys of `prompts` may stand here too, and are listed there
            properties = {
                k: v for k, v in properties.items() if k not in schema["$defs"]["prompt_settings"]["properties"]
            }
        lines += ["| key | values | meaning |", "|---|---|---|", *rows(schema, properties), ""]
        if name == "tasks":
            lines += ["Every key of `prompts` may stand in a task's block too and then holds for that task.", ""]
            lines += of_generators(schema)
    lines += [
        "## Names",
        "",
        "What the names of metrics, kinds of ablation and edge methods stand for (docs/methods.md).",
        "",
    ]
    lines += ["| name | meaning |", "|---|---|"]
    for key in ("metric", "ablation_kind", "edge_method"):
        lines += [f"| `{name}` | {meaning} |" for name, meaning in NAMES[key].items()]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    (ROOT / "docs" / "configuration.md").write_text(page())
