"""Film an atlas page for the README: docs/images/atlas.gif, from pictures that a headless Chromium takes.

python docs/build_gif.py results/MODEL/atlas.html [--task TASK] [--gif FILE]. Each picture is a link into the page: the
search of a task step by step, the head that costs most, all components, that head on a prompt, two tasks side by side.
"""

import argparse
import io
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

GIF = Path(__file__).resolve().parent / "images" / "atlas.gif"
WIDTH, HEIGHT, SHOWN = 1200, 860, 800  # pixels of the browser's window, and of the film's width
COLOURS = 96
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-sync")
OPTIONS += ("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=4000")


def data_of(page: Path) -> dict[str, Any]:
    """What an atlas page holds."""
    _, _, rest = page.read_text().partition('<script type="application/json" id="data">')
    found: dict[str, Any] = json.loads(rest.partition("</script>")[0])
    return found


def scenes(data: dict[str, Any], name: str | None) -> list[tuple[str, int]]:
    """Address of each picture, behind the #, and for how many milliseconds it is shown."""
    model = data["models"][0]
    main = [task for task in model["tasks"] if task["main"]]
    task = next((t for t in main if t["name"] == name), main[0])
    width = model["n_heads"] + 1
    (reported,) = [c for c in task["circuits"] if c["reported"]]
    effects = task["effects"].get(model["kind"]) or next(iter(task["effects"].values()))
    heads = [i for i in reported["members"] if i % width < model["n_heads"]]
    most = min(heads, key=lambda i: effects["value"][i])
    head = f"{most // width}.{most % width}"
    (search,) = [t for t in task["traces"] if (t["order"], t["threshold"]) == (reported["order"], reported["searched"])]
    steps = len(search["steps"])
    of = f"task={task['name']}"
    found = [(f"{of}&step={round(steps * part / 8)}", 350) for part in range(8)]
    found += [(of, 1800), (f"{of}&head={head}", 2200), (f"view=matrix&{of}&head={head}", 2000)]
    if task["prompts"]:
        found.append((f"view=prompt&{of}&prompt={task['prompts'][0]['prompt']}&head={head}", 2800))
    if len(main) > 1:
        found.append((f"view=compare&{of}", 2200))
    return found


def picture(browser: str, address: str) -> Image.Image:
    """What a browser shows at an address."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picture.png"
        size = [f"--window-size={WIDTH},{HEIGHT}", f"--user-data-dir={folder}/profile", f"--screenshot={file}"]
        subprocess.run([browser, *OPTIONS, *size, address], check=True, capture_output=True)
        shown = Image.open(io.BytesIO(file.read_bytes())).convert("RGB")
    return shown.resize((SHOWN, round(SHOWN * shown.height / shown.width)), Image.Resampling.LANCZOS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--task")
    parser.add_argument("--gif", type=Path, default=GIF)
    given = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no Chromium is installed here, which takes the pictures")
    film = scenes(data_of(given.page), given.task)
    shown = [picture(browser, f"{given.page.absolute().as_uri()}#{address}") for address, _ in film]
    palette = Image.new("RGB", (SHOWN, sum(p.height for p in shown)))
    for i, part in enumerate(shown):
        palette.paste(part, (0, i * part.height))
    palette = palette.quantize(COLOURS)
    frames = [part.quantize(COLOURS, palette=palette, dither=Image.Dither.NONE) for part in shown]
    frames[0].save(
        given.gif, save_all=True, append_images=frames[1:], duration=[time for _, time in film], loop=0, optimize=True
    )


if __name__ == "__main__":
    main()
