"""The film of an atlas page shows what is in the page; a browser is needed to make it, and not here."""

import json
import runpy
from urllib.parse import parse_qs

import atlas_page
from conftest import ROOT

build = runpy.run_path(str(ROOT / "docs" / "build_gif.py"))


def test_each_scene_is_a_link_to_what_the_page_holds(tmp_path):
    data = atlas_page.study()
    task = data["models"][0]["tasks"][1]
    (tmp_path / "page.html").write_text(
        f'<script type="application/json" id="data">{json.dumps(data)}</script><script></script>'
    )
    found = build["scenes"](build["data_of"](tmp_path / "page.html"), task["name"])
    links = [{key: value for key, (value,) in parse_qs(address).items()} for address, _ in found]
    assert {link["task"] for link in links} == {task["name"]}
    assert [link.get("view", "graph") for link in links][-3:] == ["matrix", "prompt", "compare"]
    (reported,) = [c for c in task["circuits"] if c["reported"]]
    (head,) = {link["head"] for link in links if "head" in link}
    width = data["models"][0]["n_heads"] + 1
    at = int(head.split(".")[0]) * width + int(head.split(".")[1])
    values = task["effects"][data["models"][0]["kind"]]["value"]
    assert at in reported["members"]
    assert values[at] == min(values[i] for i in reported["members"] if i % width < width - 1)
    (search,) = [t for t in task["traces"] if (t["order"], t["threshold"]) == (reported["order"], reported["searched"])]
    steps = [int(link["step"]) for link in links if "step" in link]
    assert steps == sorted(steps) and steps[0] == 0 and steps[-1] < len(search["steps"])
    assert links[-2]["prompt"] in {str(prompt["prompt"]) for prompt in task["prompts"]}


def test_a_page_of_one_task_without_prompts_has_a_film_too():
    data = atlas_page.study()
    data["models"][0]["tasks"] = data["models"][0]["tasks"][:1]
    data["models"][0]["tasks"][0]["prompts"] = []
    assert {address.split("&")[0] for address, _ in build["scenes"](data, None)} <= {
        f"task={data['models'][0]['tasks'][0]['name']}",
        "view=matrix",
    }
