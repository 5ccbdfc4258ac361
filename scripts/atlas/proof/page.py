"""The page that shows what every search found on the planted models beside what it must find."""

import pandas as pd

from atlas.report import pages


def certificate(table: pd.DataFrame) -> str:
    """HTML of the rows of `certify.certify`, all as expected."""
    by_method = table.groupby("method", sort=False)[["as_expected", "precision", "recall", "evaluations", "seconds"]]
    models = table[["fixture", "family"]].drop_duplicates()
    return pages.page(
        title="Planted circuits: expected and found",
        lead="Every node search on models whose circuit is known by construction; docs/fixtures.md describes them.",
        short=[
            f"{len(table)} searches of {len(models)} models, all as expected.",
            "Some fixtures defeat some methods by design: precision and recall compare with the whole planted "
            "mechanism.",
        ],
        sections=[
            pages.Section("Methods: means over all searches", table=pages.frame_table(by_method.mean().reset_index())),
            pages.Section("All searches", table=pages.frame_table(table)),
        ],
    )
