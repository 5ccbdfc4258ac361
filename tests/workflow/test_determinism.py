"""The same seed gives the same study, whatever the number of threads and the size of batches."""

import copy
import json

import numpy as np
import pandas as pd
import pytest

from atlas.core.multiple import corrected, interval_p
from study import Study

pytestmark = pytest.mark.slow

NUMERALS = "results/ladder-6x8/numerals"
TABLES = ["prompts", "clean", "clean_summary", "component_scores", "component_effects", "trace", "faithfulness"]
TABLES += ["edge_scores", "edge_trace", "edge_curves", "edge_areas", "evaluation", "completeness", "minimality"]
TABLES += ["positions"]
TORCH_RULES = ["score_clean", "cache_activations", "score_components", "search_nodes", "search_edges"]
TORCH_RULES += ["assess_circuits"]
# Float32 sums in another order differ in the seventh digit of the logits and percentages that they make: the tolerance
# is a share of the largest value of the same metric in a table (of 1, where all are smaller)
TOLERANCE = 1e-6


def scale(table: pd.DataFrame, column: str) -> np.ndarray:
    """What a difference is measured against, for each row."""
    size = table[column].abs()
    largest = size.groupby(table.metric).transform("max") if "metric" in table else size.max()
    return np.maximum(1, np.broadcast_to(np.nan_to_num(largest), len(table)))


def p_again(table: pd.DataFrame) -> pd.DataFrame:
    """The table with p-values made again of its own values and intervals."""
    p = interval_p(table["value"], table["ci_low"], table["ci_high"])
    return corrected(table.drop(columns=["claim", "tests", "p_holm"]).assign(p=p), table["claim"])


@pytest.fixture(scope="module")
def other(study, tmp_path_factory):
    """One task's tables in a study of its own, with two threads and batches of 5; the finished study has 1 and 144."""
    made = Study(tmp_path_factory.mktemp("other"))
    changed = copy.deepcopy(made.config)
    changed["models"]["ladder-6x8"]["batch_size"] = 5
    made.write_config(changed)
    options = [f"{rule}=2" for rule in TORCH_RULES]
    made.snakemake(*(f"{NUMERALS}/{name}.parquet" for name in TABLES), "--set-threads", *options)
    return made.folder / NUMERALS


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_equal(study, other, name):
    ours, theirs = (pd.read_parquet(folder / f"{name}.parquet") for folder in (study.folder / NUMERALS, other))
    assert list(ours.columns) == list(theirs.columns) and len(ours) == len(theirs)
    # A p-value is a ratio of a value to its interval: around a small value a narrow one makes much of rounding that is
    # nothing beside 100 %. So values and intervals are compared, and p-values have to follow from these in either run
    tests = [column for column in ("p", "p_holm") if column in ours]
    for table in (ours, theirs) if tests else ():
        pd.testing.assert_frame_equal(p_again(table)[tests], table[tests], rtol=1e-12, atol=0)
    for column in ours.columns.drop(tests):
        if pd.api.types.is_float_dtype(ours[column]):
            a, b = ours[column].to_numpy(), theirs[column].to_numpy()
            distance = np.nanmax(np.abs(a - b) / scale(ours, column), initial=0)
            assert distance <= TOLERANCE, (column, distance)
            assert (np.isnan(a) == np.isnan(b)).all()
        else:
            assert ours[column].map(str).equals(theirs[column].map(str)), column


def test_circuits_are_identical(study, other):
    for name, members in (("circuits", ("heads", "mlps")), ("edge_circuits", ("edges", "nodes"))):
        ours, theirs = (
            json.loads((folder / f"{name}.json").read_text())["circuits"] for folder in (study.folder / NUMERALS, other)
        )
        assert [[c[key] for key in members] for c in ours] == [[c[key] for key in members] for c in theirs]
