# How the order of members is represented: the rules of each analysis, and a target of all of them.


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


rule geometry:
    input:
        geometry_files(),
    localrule: True
    message:
        "How order is represented: figures in results/figures"
