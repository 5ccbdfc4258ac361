# Functions that the rules of order share.


def geometry_files():
    """Figures of the study's analyses of order, and the tables behind them."""
    figures = [file for row in contents.SHOWN if row.category == contents.OF_ORDER for file in row.files(STUDY)]
    tables = [
        f"results/{model}/geometry/{name}.parquet" for model in MODELS for a in ORDER for name in shown.GEOMETRY[a]
    ]
    return figures + tables


def of_geometry(analysis, folder="results/{model}/geometry"):
    """Outputs: the tables of an analysis."""
    return filled(folder, **{name: f"{name}.parquet" for name in shown.GEOMETRY[analysis]})


def gathered_prompts():
    """The prompts of all tasks of one-token answers, with their layouts; nothing in a study without such tasks."""
    names = {"prompts": "prompts.parquet", "layouts": "layouts.json"} if EXPLAINED_TASKS else {}
    return {key: f"results/{{model}}/comparison/{name}" for key, name in names.items()}


def of_prompts(key):
    """Param function: a key of `prompts`; no string, in which Snakemake would fill braces."""
    return lambda wildcards: config["prompts"][key]


OF_SEQUENCES = (
    "members",
    "step",
    "cyclic",
    "multi_token",
    "between",
    "generator",
    "file",
    "templates",
    "fillers",
    "shown",
)


def sequences():
    """What steering takes of the block of each task whose answers are one token."""
    blocks = {name: settings.task_block(config, name) for name in EXPLAINED_TASKS}
    return {name: {key: block[key] for key in OF_SEQUENCES if key in block} for name, block in blocks.items()}


def of_answers():
    """Inputs of what ablates at the answer position: the model, its circuits, prompts and means of the main tasks."""
    files = {"prompts": "prompts.parquet", "clean": "clean.parquet", "means": "means.pt"}
    of_model = {"model": "model.json", "circuits": "comparison/circuits.json"}
    inputs = {name: f"results/{{model}}/{file}" for name, file in of_model.items()}
    return inputs | {name: each(ON_MAIN, file) for name, file in files.items()}


def text_of_features():
    """What the text is made from that features are trained on and looked at."""
    own = {key: config["prompts"][key] for key in ("fillers", "shown")}
    own["templates"] = lambda wildcards: config["prompts"]["templates"]  # their braces are no wildcards
    return own | {"classes": config["geometry"]["classes"], "main_tasks": MAIN_TASKS}
