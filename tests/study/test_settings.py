"""Bad configuration gets one line that names the key, the value and what is allowed."""

import copy

import pytest
import yaml
from snakemake.utils import update_config

from atlas.circuit.kinds import KINDS
from atlas.core.errors import StudyError
from atlas.core.metrics import METRICS
from atlas.edges.methods import CHANGES, METHODS, RANKINGS
from atlas.study import checks, names
from atlas.study.settings import fixed_order, order_names
from atlas.study.validation import validated
from conftest import ROOT

SCHEMA = yaml.safe_load((ROOT / "schemas" / "config.schema.yaml").read_text())


def changed(config, key, value):
    out = copy.deepcopy(config)
    *path, last = key.split("/")
    block = out
    for part in path:
        block = block[part]
    block[last] = value
    return out


def message(config) -> str:
    try:
        validated(config, SCHEMA, ROOT / "resources" / "published")
    except StudyError as error:
        return str(error)
    return ""


SMALL = {"search/thresholds": [20]}
START, PLACES = "edges.start_threshold: 10", "evaluation.positions.start_threshold: 10"


@pytest.mark.parametrize(
    ("changes", "named", "unnamed"),
    [
        ({}, [START, PLACES], ["comparison.threshold"]),
        ({"edges/methods": []}, [PLACES], ["edges"]),
        ({"edges/start": "full"}, [PLACES], ["edges"]),
        ({"evaluation/positions/start_threshold": 20}, [START], ["evaluation", "comparison"]),
        ({"comparison/threshold": 40}, ["comparison.threshold: 40", START, PLACES], []),
        ({"edges/methods": [], "evaluation/positions/start_threshold": 20}, [], []),
    ],
)
def test_every_key_that_names_a_threshold_not_searched_is_named_if_it_is_read(config, changes, named, unnamed):
    """`search: {thresholds: [20]}` over the default study: one line lists all that has to change with it."""
    for key, value in (SMALL | changes).items():
        config = changed(config, key, value)
    said = message(config)
    assert bool(said) == bool(named) and "\n" not in said
    assert all(key in said for key in named) and not any(key in said for key in unnamed)
    assert not named or "search.thresholds (20); set" in said


@pytest.mark.parametrize(("key", "value"), [("edges/start", "full"), ("prompts/allow_negative_clean", True)])
def test_edges_may_have_no_room_where_nothing_is_refused_for_it(config, key, value):
    assert message(changed(changed(config, "edges/threshold", 10), key, value)) == ""


def test_the_default_configuration_is_good(config):
    assert message(config) == ""


@pytest.mark.parametrize("preset", sorted(p.name for p in (ROOT / "presets").glob("*.yaml")))
def test_presets_are_good(config, preset):
    merged = copy.deepcopy(config)
    update_config(merged, yaml.safe_load((ROOT / "presets" / preset).read_text()))
    assert message(merged) == ""


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("serach", {}, ["unknown key 'serach'", "search"]),
        ("search/treshold", 1, ["search: unknown key 'treshold'", "thresholds"]),
        ("tasks/days/stepp", 1, ["tasks.days: unknown key 'stepp'", "step"]),
        ("prompts/shown", "four", ["prompts.shown: 'four'", "integer"]),
        ("prompts/shown", 1, ["prompts.shown: 1", ">= 2"]),
        ("prompts/corruption", "shuffle", ["prompts.corruption: 'shuffle'", "random_members"]),
        ("prompts/corruption", {"position": -1}, ["prompts.corruption.position: -1", ">= 0"]),
        ("search/thresholds", [20, 120], ["search.thresholds.1: 120", "< 100"]),
        ("search/thresholds", [], ["search.thresholds: []", "at least 1"]),
        ("search/orders", ["alphabetical"], ["search.orders.0: 'alphabetical'", "ascending_effect"]),
        ("search/orders", [{"annealed": -1}], ["search.orders.0.annealed: -1", ">= 0"]),
        ("search/orders", [{}], ["search.orders.0: {}", "at least 1"]),
        (
            "search/orders",
            [{"random": 0, "annealed": 0}],
            ["search.orders.0: {'random': 0, 'annealed': 0}", "at most 1"],
        ),
        ("search/annealed_evaluations", 0, ["search.annealed_evaluations: 0", ">= 1"]),
        ("search/never_test", ["9-1"], ["search.never_test.0: '9-1'", "9.1"]),
        ("models/ladder-6x8/dtype", "int8", ["models.ladder-6x8.dtype: 'int8'", "float32"]),
        ("models/ladder-6x8", {}, ["models.ladder-6x8", "path"]),
        ("study/tasks", ["numerals", "weeks"], ["study.tasks: 'weeks' is unknown", "months"]),
        ("study/models", ["gpt9"], ["study.models: 'gpt9' is unknown", "ladder-6x8"]),
        ("study/transfer_tasks", ["months"], ["study.transfer_tasks: 'months' is also in study.tasks"]),
        ("study/unrelated_tasks", ["months"], ["study.unrelated_tasks: 'months' is also in study.tasks"]),
        ("study/unrelated_tasks", ["days"], ["study.unrelated_tasks: 'days' is also in study.transfer_tasks"]),
        ("comparison/threshold", 30, ["comparison.threshold: 30", "20"]),
        ("edges/threshold", 10, ["edges.threshold: 10 leaves", "edges.start_threshold: 10", "start: full"]),
        ("comparison/order", "random_5", ["comparison.order: 'random_5'", "random_0"]),
        ("geometry/analyses", ["helices"], ["geometry.analyses.0: 'helices'", "shapes"]),
        ("geometry/successors/draws", 5, ["geometry.successors.draws: 5", ">= 21"]),
        ("geometry/classes/days", {"members": ["Mon", "Tue", "Wed", "Mon", "Thu"]}, ["geometry.classes.days", "'Mon'"]),
        ("geometry/classes/days", {"members": ["1", 2, 3, 1, 4]}, ["geometry.classes.days.members: '1' stands twice"]),
        ("geometry/classes/days", {"members": {"range": [9, 0]}}, ["geometry.classes.days.members: 0 are too few"]),
        ("geometry/steering/pairs", [["weeks", "months"]], ["geometry.steering.pairs: 'weeks'", "numerals"]),
        ("geometry/steering/pairs", [["months", "weeks"]], ["geometry.steering.pairs: 'weeks'", "geometry.classes"]),
        ("comparison/controls", 5, ["comparison.controls: 5", ">= 20"]),
        ("tasks/months/members", ["May"], ["tasks.months.members", "at least 2"]),
        ("tasks/months", {"cyclic": True}, ["tasks.months: give `members`, or `file`"]),
        ("tasks/shared", {"members": ["a", "b"]}, ["'shared' is reserved"]),
        ("tasks/a b", {"members": ["a", "b"]}, ["'a b' does not match"]),
        (
            "prompts/fillers/object",
            ["May", "Hat", "Key", "Map", "Box"],
            ["prompts.fillers.object: 'May' is a member of task months"],
        ),
        ("prompts/templates", ["{object} {m}", "nothing"], ["'nothing'", "{m}"]),
        ("ablation/kind", "noise", ["ablation.kind: 'noise'", "mean_clean"]),
        ("search/relative_tolerance", 0, ["search.relative_tolerance: 0", "> 0"]),
    ],
)
def test_bad_values_are_named(config, key, value, said):
    line = message(changed(config, key, value))
    assert line and "\n" not in line
    for words in said:
        assert words in line


def test_legacy_means_need_mean_ablation(config):
    bad = changed(changed(config, "search/legacy_mlp_means", True), "ablation/kind", "zero")
    assert "legacy_mlp_means" in message(bad)


def test_the_rule_or_an_order_names_what_is_reported(config):
    assert fixed_order(config) is None, "the default"
    named = config | {"comparison": config["comparison"] | {"order": "random_0"}}
    checks.check(named)
    assert fixed_order(named) == "random_0"


def test_order_names():
    assert order_names(["layers", {"random": 4}, {"annealed": 4}]) == {"layers": None, "random_4": 4, "annealed_4": 4}


def test_tasks_of_several_tokens_are_refused_where_they_cannot_be_studied(config):
    """As a main task in a study with edges, and with means that only the published code took."""
    assert "tasks.days.multi_token: 'yes' is of the wrong type" in message(
        changed(config, "tasks/days/multi_token", "yes")
    )
    transfer, main = (changed(config, f"tasks/{task}/multi_token", True) for task in ("days", "months"))
    assert message(transfer) == ""
    assert message(main).startswith("study.tasks: 'months' is multi_token") and "edges.methods: []" in message(main)
    assert message(changed(main, "edges/methods", [])) == ""
    said = message(changed(changed(transfer, "scores/kinds", ["optimal"]), "ablation/kind", "optimal"))
    assert said.startswith("ablation.kind: optimal") and "'days'" in said
    assert message(changed(transfer, "scores/kinds", ["mean", "optimal"])) == "", "of main tasks alone"
    several = changed(changed(main, "edges/methods", []), "scores/kinds", ["mean", "optimal"])
    assert message(several).startswith("scores.kinds: optimal") and "'months'" in message(several)
    said = message(changed(changed(main, "edges/methods", []), "search/orders", [{"gates": 0}]))
    assert said.startswith("search.orders: gates") and "'months'" in said
    legacy = changed(changed(config, "search/legacy_mlp_means", True), "search/orders", [{"gates": 0}])
    assert message(legacy).startswith("search.legacy_mlp_means: true takes other means")
    tolerant = changed(config, "search/relative_tolerance", 5)
    assert message(changed(tolerant, "search/orders", [{"gates": 0}])).startswith(
        "search.orders: gates shut all at once"
    )
    for several, name in ((transfer, "days"), (changed(main, "edges/methods", []), "months")):
        said = message(changed(several, "search/legacy_mlp_means", True))
        assert said.startswith("search.legacy_mlp_means: true") and repr(name) in said
    assert message(changed(config, "search/legacy_mlp_means", True)) == ""


def test_a_publication_needs_the_analyses_that_it_has_figures_of(config):
    bad = changed(changed(config, "published", "gpt2-small"), "heads/analyses", ["patching", "attention"])
    assert message(bad).startswith("heads.analyses: attribution is missing, which `published` compares")


# ---- names that are registries of the library ----------------------------------------------------------------
def enumerations(node):
    """Every list of allowed values anywhere in a schema."""
    if isinstance(node, dict):
        if "enum" in node:
            yield node["enum"]
        for inner in node.values():
            yield from enumerations(inner)
    elif isinstance(node, list):
        for inner in node:
            yield from enumerations(inner)


def test_the_schema_names_what_the_registries_hold_and_spells_none_of_it_out():
    definitions = names.filled(SCHEMA)["$defs"]
    assert {key: definitions[key]["enum"] for key in names.NAMES} == {
        key: list(found) for key, found in names.NAMES.items()
    }
    assert names.NAMES["metric"].keys() == METRICS.keys() and names.NAMES["ablation_kind"].keys() == KINDS.keys()
    assert names.NAMES["edge_method"].keys() == METHODS.keys()
    spelled = {value for values in enumerations(SCHEMA) for value in values if isinstance(value, str)}
    assert not spelled & {*METRICS, *METHODS, "resample", "mean_clean"}
    rankings, changes = (SCHEMA["properties"]["edges"]["properties"][key] for key in ("rankings", "change"))
    assert rankings["items"]["enum"] == list(RANKINGS) and changes["enum"] == list(CHANGES)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("edges/methods", ["eapp"], METHODS),
        ("scores/metrics", ["accuracy"], METRICS),
        ("ablation/kind", "median", KINDS),
        ("stability/edges", "path_patching", ["eap", "eap_ig", "relp", None]),
    ],
)
def test_a_name_that_no_registry_holds_is_refused_with_those_that_there_are(config, key, value, allowed):
    said = message(changed(config, key, value))
    assert said.endswith(f"is not allowed; one of {', '.join(map(str, allowed))}") and "\n" not in said


def test_a_class_of_many_members_is_checked_at_once(config):
    """Each member compared with every other would take many minutes."""
    assert not message(changed(config, "geometry/classes/numerals", {"members": {"range": [0, 200_000]}}))
