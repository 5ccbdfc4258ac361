"""Every position has one word of each kind: against texts whose words are marked by hand, and as properties.

A text is written with a letter for each token: `B` for BOS, `m` and `n` for the tokens of a member (each `m` begins
one), `.` for all else.
"""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlas.core.positions import RELATIVE, ROLES, Layout, Slot


def layout_of(text: str) -> Layout:
    starts = [i for i, letter in enumerate(text) if letter == "m"]
    ends = [next((j for j in range(i + 1, len(text)) if text[j] != "n"), len(text)) - 1 for i in starts]
    return Layout(len(text), tuple(zip(starts, ends, strict=True)), len(text) - 1, text.startswith("B"))


tokens = st.lists(st.sampled_from([".", "..", "...", "m", "mn", "mnn"]), min_size=1, max_size=9).map("".join)
texts = st.tuples(st.sampled_from(["", "B"]), tokens).map("".join)


# ---- roles and names -----------------------------------------------------------------------------------------
@given(texts)
def test_roles_divide_the_positions(text):
    """`last` before `bos` before `members`; the oracle reads the letters."""
    layout = layout_of(text)
    words = ["last" if i == len(text) - 1 else {"B": "bos", ".": "separators"}.get(c) for i, c in enumerate(text)]
    words = [word or "members" for word in words]
    assert [layout.role(i) for i in range(len(text))] == words
    expected = {role: [i for i, word in enumerate(words) if word == role] for role in ROLES}
    assert layout.roles == {role: where for role, where in expected.items() if where}, "no role is empty"
    assert list(layout.roles) == [role for role in ROLES if role in layout.roles], "in the order of tables"


@given(texts)
def test_names_are_roles_with_members_numbered(text):
    layout, number, names = layout_of(text), 0, []
    for i, letter in enumerate(text):
        number += letter == "m"
        names.append(f"member {number}" if layout.role(i) == "members" else layout.role(i))
    assert list(layout.names) == names
    for name, position in layout.queries.items():
        assert names[position] == name
        assert position == len(text) - 1 or text[position + 1] != "n", "a member is left at its last token"
    assert list(layout.queries)[-1] == "last" and len(set(layout.queries.values())) == len(layout.queries)
    seen = text.count("m") - (text.endswith(("m", "n")))
    assert [name for name in layout.queries if name != "last"] == [f"member {k}" for k in range(1, seen + 1)]


def test_words_of_layouts_written_out():
    assert layout_of("B.m..m..").roles == {"bos": [0], "members": [2, 5], "separators": [1, 3, 4, 6], "last": [7]}
    assert layout_of("....").roles == {"separators": [0, 1, 2], "last": [3]}, "a file that tells no members"
    assert layout_of("mmm").roles == {"members": [0, 1], "last": [2]}, "a member at the answer position is last"
    assert layout_of("mmm").names == ("member 1", "member 2", "last")
    assert layout_of(".m.m..").names == ("separators", "member 1", "separators", "member 2", "separators", "last")
    assert layout_of("Bmn.").queries == {"member 1": 2, "last": 3}
    assert layout_of("B").roles == {"last": [0]}


# ---- relative roles ------------------------------------------------------------------------------------------
def relative_by_hand(text: str, query: int) -> list[str]:
    """Key by key, in the words of the docstring."""
    number, of = 0, []
    for letter in text:
        number += letter == "m"
        of.append(number if letter in "mn" else None)
    shown = [k for k in of[:query] if k]
    out = []
    for key in range(query + 1):
        if key == query:
            out.append("self")
        elif of[key]:
            out.append("last member" if of[key] == shown[-1] else "other members" if of[key] > 1 else "first member")
        elif key == 0:
            out.append("first token")
        else:
            out.append("same slot" if slot_by_hand(text, key) == slot_by_hand(text, query) else "separators")
    return out


def slot_by_hand(text: str, position: int):
    """(tokens to the next member, if it is near enough) or (tokens since the last one); unlike for any two tokens
    where there is none."""
    if "m" not in text:
        return position, "none"
    own = text + "m"  # the answer would be the next member
    lead = text.index("m") - text.startswith("B")
    if text[position] in "mn":
        return 0
    ahead = own.index("m", position) - position
    return -ahead if ahead <= lead else len(own[:position]) - len(own[:position].rstrip(".")) + 1


@given(texts, st.data())
def test_every_key_has_one_relative_role(text, data):
    query = data.draw(st.integers(0, len(text) - 1))
    found = layout_of(text).relative(query)
    assert found == relative_by_hand(text, query)
    assert len(found) == query + 1 and set(found) <= set(RELATIVE)


@given(
    sizes=st.lists(st.integers(1, 3), min_size=2, max_size=5),
    before=st.integers(0, 3),
    after=st.integers(0, 3),
    bos=st.booleans(),
    one=st.booleans(),
)
def test_clauses_of_one_wording_have_the_same_slots(sizes, before, after, bos, one):
    """What a template makes: in every clause as many tokens before and after its member. The answer's clause stops
    before its member, so that the answer position stands where a token before each member does."""
    sizes = [1] * len(sizes) if one else sizes
    clauses = ["." * before + "m" + "n" * (size - 1) + "." * after for size in sizes]
    text = "B" * bos + "".join(clauses) + "." * before
    layout, position = layout_of(text), int(bos)
    for number, clause in enumerate(clauses, 1):
        for i, letter in enumerate(clause):
            offset = 0 if letter in "mn" else i - before if i < before else i - len(clause) + after + 1
            assert layout.slots[position] == Slot(number, offset)
            position += 1
    assert layout.slots[position:] == tuple(Slot(len(sizes) + 1, i - before) for i in range(before))
    if bos:
        assert layout.slots[0] is None
    if before > 1:
        same = [i for i, role in enumerate(layout.relative(len(text) - 1)) if role == "same slot"]
        assert same == [first - 1 for first, _ in layout.members]


def test_relative_roles_written_out():
    default = layout_of("...m....m....m....m....")  # four clauses of five tokens, and the answer's
    assert default.places == [3, 8, 13, 18] and default.answer_position == 22
    slot, other = "same slot", "separators"
    assert default.relative(22) == [
        *("first token", other, slot, "first member", other),
        *(other, other, slot, "other members", other),
        *(other, other, slot, "other members", other),
        *(other, other, slot, "last member", other),
        *(other, other, "self"),
    ]
    assert [default.relative(3)[k] for k in range(4)] == ["first token", other, other, "self"]
    assert default.relative(8)[3] == "last member", "the one member that is shown"
    assert default.relative(13)[3:9:5] == ["first member", "last member"]
    assert default.relative(9)[3:9] == ["first member", slot, other, other, other, "last member"], "after a member"
    assert layout_of("Bm.m.").relative(4) == ["first token", "first member", slot, "last member", "self"]
    assert layout_of("Bmn.mnn").relative(6) == [
        "first token",
        *["first member"] * 2,
        other,
        *["last member"] * 2,
        "self",
    ]
    assert layout_of("....").relative(3) == ["first token", other, other, "self"]
    assert layout_of(".m.m.").relative(4)[0] == "first token", "though it stands where the others do"
    assert [str(s) for s in layout_of("B.m.").slots] == ["None", "clause 1 -1", "clause 1", "clause 2 -1"]
    assert str(Slot(2, 3)) == "clause 2 +3"


# ---- members and files ---------------------------------------------------------------------------------------
@given(texts)
def test_a_layout_survives_json(text):
    layout = layout_of(text)
    assert Layout.of(json.loads(json.dumps(layout.to_json() | {"prompts": 3}))) == layout
    assert layout.member_positions == [i for i, letter in enumerate(text) if letter in "mn"]


def test_members_of_several_tokens_have_no_one_place():
    assert layout_of(".m.m.").places == [1, 3]
    with pytest.raises(ValueError, match="several tokens"):
        _ = layout_of(".mn.m.").places


def test_columns_of_a_file_may_name_members_in_any_order_and_twice():
    """Numbers follow the columns, first and last member the text; a token of two columns is the earlier one's."""
    layout = Layout(6, ((3, 3), (1, 1), (3, 3)), 5)
    assert layout.names == ("separators", "member 2", "separators", "member 1", "separators", "last")
    assert layout.relative(5)[1:4:2] == ["first member", "last member"]
    assert [slot.clause for slot in layout.slots if slot] == [1, 1, 2, 2, 2, 3]
