"""The page of a look at the data."""

import re
from html.parser import HTMLParser

from hypothesis import given, settings
from hypothesis import strategies as st

from atlas.report import data_page
from atlas.report.data_check import look
from prompt_tables import data, fake_clean, fake_prompts, fake_tokens


class Page(HTMLParser):
    """Text of a page, the tags that are open at its end, its boxes (class, title, text), and addresses outside it."""

    def __init__(self, html: str):
        super().__init__()
        self.open, self.text, self.boxes, self.outside, self.anchors = [], [], [], [], set()
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.outside += [v for k, v in attrs.items() if k in ("src", "href") and not v.startswith("#")]
        self.anchors.add(attrs.get("id"))
        if tag != "meta":
            self.open.append(tag)
        if tag == "b" and "title" in attrs:
            self.boxes.append([attrs["class"], attrs["title"], ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)
        if self.open and self.open[-1] == "b" and self.boxes and not self.boxes[-1][2]:
            self.boxes[-1][2] = data


def page_of(*looks, warning="") -> Page:
    return Page(data_page.page(list(looks), {"t": fake_tokens(fake_prompts())}, "T <x>", warning, ["t"]))


def test_the_page_shows_counts_reasons_scores_answers_and_tokens():
    reasons = ["an answer is not one token"] * 20 + ["one answer begins with the other"]
    page = page_of(look(data(reasons=reasons, info={"hold_out": "sequences"})), warning="Random weights")
    text = " ".join("".join(page.text).split())
    assert not page.open and page.outside == [] and "t" in page.anchors
    for said in (
        "T <x>",
        "Random weights",
        "128 of 149 prompts can be used: 64 to search on, 64 held out.",
        "rejected: an answer is not one token",
        "set multi_token: true, or choose answers of one token",
        "rejected: one answer begins with the other",
        "give another incorrect answer",
        "whole member sequences",
        "first choice right (%)",
        "{m} was.",
        "with incorrect one",
    ):
        assert said in text, said
    assert ["members", "member; position 1, id 1, Ġ1", "\u24231"] in page.boxes
    assert ["last", "last token, answers here; position 2, id 7, Ċ", "\u23ce"] in page.boxes
    assert {box[0] for box in page.boxes} == {"bos", "members", "last", "answer", "incorrect"}


def test_the_page_says_what_stops_the_study_and_what_does_not():
    stopped = page_of(look(data(clean=fake_clean(fake_prompts(), logit_diff=-1))))
    assert "Stops the study" in "".join(stopped.text)
    fine = "".join(page_of(look(data())).text)
    assert "Nothing looks wrong." in fine and "Stops the study" not in fine


def contrast(one: str, two: str) -> float:
    """Of two colours `#rrggbb` or `#rgb`, as WCAG 2 defines it."""

    def luminance(colour):
        digits = colour.lstrip("#")
        digits = "".join(2 * c for c in digits) if len(digits) == 3 else digits
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def test_every_role_can_be_read_on_its_colour():
    """At least 4.5, as WCAG 2 asks of text."""
    html = data_page.page([], {}, "T", "", [])
    default = re.search(r"\.tokens b \{[^}]*color: (#\w+); background: (#\w+)", html)
    assert contrast(*default.groups()) >= 4.5
    for role in ("members", "last", "answer", "bos"):
        rule = re.search(rf"\.tokens \.{role} \{{([^}}]*)\}}", html)[1]
        ink = re.search(r"(?<!-)color: (#\w+)", rule)
        assert contrast(re.search(r"background: (#\w+)", rule)[1], ink[1] if ink else default[1]) >= 4.5, role


@given(st.text(max_size=20))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_no_token_is_invisible(string):
    shown = data_page.visible(string)
    assert shown and not set(" \n\t\r") & set(shown)
