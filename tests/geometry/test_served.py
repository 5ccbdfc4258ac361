"""What a model cannot be served is said before anything is computed, with the lists to give."""

import pytest

from atlas.core.errors import StudyError
from atlas.geometry import served
from atlas.heads import analyses
from atlas.report import shown


def test_analyses_lack_what_those_of_heads_lack():
    assert served.reasons({}) == {}
    assert set(served.reasons({"edges": "no engine"})) == {"directions", "neurons"}
    assert set(served.reasons({"lens": "a", "ov": "b"})) == {"successors", "tuned_lens", "directions", "features"}
    assert served.reasons({"edges": "no engine", "ov": "normed"})["directions"] == "no engine"
    assert set(served.NEEDS) <= set(shown.GEOMETRY)


def test_the_refusal_names_the_lists_to_give():
    reasons = {"edges": "no engine"}
    asked = served.wanted(edges=False, heads=["lens"], order=["shapes", "neurons"])
    with pytest.raises(StudyError) as refused:
        analyses.refuse("m", "X", asked, reasons | served.reasons(reasons))
    assert str(refused.value) == "models.m: X cannot be served neurons: no engine; set geometry.analyses: [shapes]"
    analyses.refuse("m", "X", served.wanted(False, ["lens"], ["shapes"]), reasons | served.reasons(reasons))


@pytest.mark.parametrize(
    ("hook", "path", "said"),
    [
        ("resid_post.6", None, "geometry.features.hook: 'resid_post.6' is not .* of a layer 0 to 5"),
        ("resid_post.0", "missing", "missing"),
    ],
)
def test_features_of_no_hook_or_file_are_refused(shipped_model, tmp_path, hook, path, said):
    served.check_features(shipped_model, "resid_post.4", None)
    with pytest.raises(StudyError, match=said):
        served.check_features(shipped_model, hook, path and tmp_path / path)
