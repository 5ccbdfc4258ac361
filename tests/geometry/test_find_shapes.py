"""All four tables of the shipped model's months, and what is refused."""

import pandas as pd
import pytest

from atlas.core.errors import StudyError
from atlas.core.statistics import Bootstrap
from atlas.geometry import displacements, find_shapes, shape_patches, shapes
from conftest import load_tokenizer
from head_prompts import study_task

SMALL = {"contexts": 4, "points": 3, "permutations": 60, "prompts": 8, "draws": 3, "prepend_bos": False}


def settings_of(config, classes, **other):
    prompts = {key: config["prompts"][key] for key in ("templates", "fillers", "random_words")}
    return find_shapes.Settings(**SMALL | prompts | {"classes": classes} | other)


@pytest.fixture(scope="module")
def months(config, shipped_model):
    tasks = [(task, *study_task(config, task, per_template=12)) for task in ("number_words", "months")]
    settings = settings_of(config, {"months": config["geometry"]["classes"]["months"]})
    found = find_shapes.find(shipped_model, load_tokenizer("shipped"), settings, tasks, Bootstrap(100, 0))
    return shipped_model, tasks, settings, found


def test_months_of_the_shipped_model_lie_around_a_circle_which_the_answer_follows(months):
    _, _, _, found = months
    circle = found["shapes"][found["shapes"]["shape"] == "circle"]
    member = circle[circle["at"] == "member"]
    assert (member.value > 0.9).all() and (member.p_holm < 0.05).all() and list(member.point) == [0, 3, 6]
    assert list(circle[circle["at"] == "answer"].point) == [3, 6], (
        "at point 0 the last token tells nothing of the answer"
    )
    patched = found["shape_patches"]
    assert set(patched.task) == {"months"} and set(patched.prompts) == {4}
    own = patched[patched.chosen].set_index("patched")
    assert own.loc["whole", "value"] > 0.9 and own.loc["fitted", "value"] > 0.3 and own.loc["fitted", "point"] == 0
    assert set(found["pca"].task) == {"", "months"} and len(found["pca"]) == 12 * 5
    assert set(found["displacements"]["other"]) == {"months"}
    columns = [shapes.PCA_COLUMNS, shapes.COLUMNS, displacements.COLUMNS, shape_patches.COLUMNS]
    assert [list(table) for table in found.values()] == columns


@pytest.mark.slow
def test_the_same_again_gives_the_same_tables(months):
    model, tasks, settings, found = months
    again = find_shapes.find(model, load_tokenizer("shipped"), settings, tasks, Bootstrap(100, 0))
    for name, table in found.items():
        pd.testing.assert_frame_equal(table, again[name], check_exact=True)


def test_without_tasks_members_are_looked_at_and_nothing_is_patched(config, shipped_model):
    settings = settings_of(config, {"days": config["geometry"]["classes"]["days"]})
    found = find_shapes.find(shipped_model, load_tokenizer("shipped"), settings, [], Bootstrap(100, 0))
    assert set(found["shapes"]["at"]) == {"member"} and not len(found["shape_patches"])
    assert list(found["shape_patches"]) == shape_patches.COLUMNS


def test_permutations_that_could_never_tell_and_classes_without_members_are_refused(config, shipped_model):
    with pytest.raises(StudyError, match=r"geometry\.shapes\.permutations: 199 give no p .* give at least 200"):
        find_shapes.refuse_few(10, 199)
    find_shapes.refuse_few(9, 199)
    with pytest.raises(StudyError, match=r"geometry\.classes: none has 4 members"):
        classes = {"odd": {"members": ["Monday", "qwxzy vbnmp"]}}
        find_shapes.find(shipped_model, load_tokenizer("shipped"), settings_of(config, classes), [], Bootstrap(9, 0))


def test_prompts_of_each_answer_are_few_and_spread():
    frame = pd.DataFrame({"answer_token": [1, 1, 1, 1, 2, 2], "prompt": range(6)})
    assert find_shapes.few_of_each(frame, 2)["prompt"].to_list() == [1, 3, 4, 5]
