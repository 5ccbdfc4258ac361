"""What the tokens table shows, and what is refused because texts and ids do not agree."""

import pandas as pd
import pytest

from atlas.core.errors import StudyError
from atlas.core.positions import Layout
from atlas.prompts import token_table, tokens
from atlas.prompts.tasks import Task, make_prompts
from atlas.prompts.words import single_token_fillers, tokens_in_text
from atlas.study.settings import task_block
from conftest import SHARED, SHIPPED, load_tokenizer

COLOURS = {"clean": "#4477AA", "corrupted": "#BBBBBB"}
TEMPLATES = ["{object} done in {m}.", "{name} born in {m}."]


def encoded(config, tokenizer, members, bos, **changes):
    block = config["prompts"] | {"templates": TEMPLATES, "members": members, "per_template": 10} | changes
    usable = {kind: single_token_fillers(tokenizer, words) for kind, words in block["fillers"].items()}
    task = Task.from_config("t", block | {"fillers": usable, "held_out_share": 0})
    return tokens.encode_prompts(make_prompts(task), tokenizer, bos, "t")


def table(config, name, members, bos):
    tokenizer = load_tokenizer(name)
    found = encoded(config, tokenizer, members, bos)
    return found, pd.DataFrame(token_table.rows(found.rows, Layout.of(found.layout), tokenizer)), tokenizer


# ---- the table -----------------------------------------------------------------------------------------------
CASES = [("gpt2", range(1, 13)), ("pythia", range(1, 13)), ("llama2", range(1, 10))]


@pytest.mark.parametrize("bos", [False, True])
@pytest.mark.parametrize(("name", "members"), CASES)
def test_the_table_is_what_the_model_reads(config, name, members, bos):
    """One prompt per template; ids are those of the prompt and its answer, strings together are its text."""
    found, rows, tokenizer = table(config, name, list(members), bos)
    assert tuple(rows.columns) == token_table.COLUMNS and rows.template.unique().tolist() == TEMPLATES
    where = {position: role for role, at in Layout.of(found.layout).roles.items() for position in at}
    for number in rows.prompt.unique():
        prompt = next(row for row in found.rows if row["prompt"] == number)
        for run, text, ids in (("clean", "text", "tokens"), ("corrupted", "corrupted_text", "corrupted_tokens")):
            shown = rows[(rows.prompt == number) & (rows.run == run) & (rows.role != "incorrect")]
            assert shown.position.tolist() == list(range(len(prompt[ids]) + 1))
            assert shown.id.tolist() == [*prompt[ids], prompt["answer_token"]]
            assert "".join(shown.string) == f"{prompt[text]} {prompt['answer']}"
            assert shown.role.tolist() == [where[i] for i in range(len(prompt[ids]))] + ["answer"]
            members_read = shown.string[shown.role == "members"].str.strip().tolist()
            assert members_read == prompt["members" if run == "clean" else "corrupted_members"]
            assert shown.piece.tolist() == tokenizer.convert_ids_to_tokens(shown.id.tolist())
        wrong = rows[(rows.prompt == number) & (rows.role == "incorrect")]
        assert wrong.id.tolist() == [prompt["incorrect_token"]] and wrong.run.tolist() == ["clean"]
        assert wrong.string.iloc[0].strip() == prompt["incorrect"]


def test_llamas_lone_space_is_a_token_of_its_own_before_each_digit(config):
    """Five spaces, four before members and one at the end, which is where the model answers."""
    _, rows, _ = table(config, "llama2", list(range(1, 10)), True)
    shown = rows[(rows.prompt == rows.prompt[0]) & (rows.run == "clean")]
    spaces = shown[shown.id == 29871]
    assert spaces.piece.tolist() == ["▁"] * 5 and spaces.string.tolist() == [" "] * 5
    assert spaces.role.tolist() == ["separators"] * 4 + ["last"]
    after = shown.set_index("position").role[spaces.position[:4] + 1]
    assert set(after) == {"members"}, "the space is not the member"
    assert shown[shown.role == "answer"].string.iloc[0] == "5", "so the answer adds no space"
    assert shown.iloc[0][["id", "piece", "string", "role"]].tolist() == [1, "<s>", "", "bos"]


def test_llama_splits_every_numeral_of_two_digits():
    tokenizer = load_tokenizer("llama2")
    assert tokens_in_text(tokenizer, [str(i) for i in range(10)], "in ") == [1] * 10
    assert tokens_in_text(tokenizer, [str(i) for i in range(10, 100)], "in ") == [2] * 90
    assert tokenizer("in 12", add_special_tokens=False)["input_ids"][1:] == [29871, 29896, 29906]


def test_the_default_tasks_show_their_members_on_the_shipped_tokenizer(config):
    tokenizer = load_tokenizer("shipped")
    block = task_block(config, "months")
    found = tokens.encode_prompts(make_prompts(Task.from_config("months", block)), tokenizer, False, "months")
    rows = pd.DataFrame(token_table.rows(found.rows, Layout.of(found.layout), tokenizer))
    assert rows.prompt.nunique() == len(block["templates"])
    assert set(rows.string[rows.role == "members"].str.strip()) <= set(block["members"])


# ---- drift and trailing spaces -------------------------------------------------------------------------------
class Lossy:
    """A tokenizer whose decoding joins a word to a full stop before it, as clean-up of spaces does in some."""

    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, *arguments, **options):
        return self.inner(*arguments, **options)

    def batch_decode(self, ids, **options):
        return [text.replace(". ", ".") for text in self.inner.batch_decode(ids, **options)]


def test_a_tokenizer_whose_texts_come_back_as_other_ids_is_refused(config):
    lossy = Lossy(load_tokenizer("shipped"))
    rows = make_prompts(Task.from_config("days", task_block(config, "days")))
    with pytest.raises(StudyError, match=r"the text of its tokens has other tokens: \d+\); replace unusual spaces"):
        tokens.encode_prompts(rows, lossy, False, "days")


def row(text, corrupted, answer=" four", incorrect=" three", template="x"):
    return {
        "text": text,
        "corrupted_text": corrupted,
        "answer": answer,
        "incorrect": incorrect,
        "template": template,
    }


def test_drift_is_found_prompt_by_prompt():
    """Llama's decoder drops a space at the beginning of a text, so that ids of a text with two cannot come back."""
    tokenizer = load_tokenizer("llama2")
    good, spaced = ("one done in", "two done in"), ("  one done in", "  two done in")
    ids, _ = tokens.encode(tokenizer, [*good, *spaced])
    assert tokens.drifted(tokenizer, ids) == [False, False, True, True]
    found = tokens.encode_prompts([row(*good), row(*good), row(*spaced)], tokenizer, True, "t")
    assert len(found.rows) == 2 and found.rejected == {"the text of its tokens has other tokens": 1}


@pytest.mark.parametrize("name", ["shipped", "gpt2", "pythia", "llama2"])
def test_a_text_that_ends_with_a_space_is_rejected(name):
    """Its answer brings a space of its own; two of them are a text that nobody means."""
    tokenizer = load_tokenizer(name)
    rows = [row("one two", "two one"), row("one two ", "two one "), row("one two", "two one ")]
    found = tokens.encode_prompts(rows, tokenizer, False, "t")
    assert len(found.rows) == 1 and found.rejected == {"the text ends with a space": 2}


@pytest.mark.parametrize("name", ["gpt2", "pythia", "llama2", "shipped"])
def test_no_generated_prompt_drifts(config, name):
    tokenizer = load_tokenizer(name)
    assert not encoded(config, tokenizer, list("123456789"), False).rejected


# ---- the slow tokenizer --------------------------------------------------------------------------------------
def llama_folder():
    load_tokenizer("llama2")  # skips where it is not here
    return SHARED / "tokenizers" / "llama2"


def test_llamas_two_tokenizers_agree_on_prompts(config):
    tokenizer = load_tokenizer("llama2")
    texts = [r["text"] for r in encoded(config, tokenizer, list("123456789"), False).rows]
    texts += ["Boat lost in 12.", "enero febrero", "año, niño", "two  spaces", "line\nbreak"]
    assert token_table.compare_with_slow(llama_folder(), tokenizer, texts) == {
        "compared": len(texts),
        "different": 0,
        "example": None,
    }


def test_a_fast_tokenizer_that_differs_is_found():
    """Without its normaliser the fast tokenizer puts no space before the first word."""
    from tokenizers import normalizers
    from transformers import AutoTokenizer

    folder = llama_folder()
    changed = AutoTokenizer.from_pretrained(folder)
    changed.backend_tokenizer.normalizer = normalizers.Lowercase()
    found = token_table.compare_with_slow(folder, changed, ["one done in", "Boat LOST"])
    assert found["compared"] == 2 and found["different"] >= 1 and found["example"]


def test_most_tokenizers_have_no_slow_one_beside_them():
    assert token_table.compare_with_slow(SHIPPED, load_tokenizer("shipped"), ["one"]) is None


# ---- the figure ----------------------------------------------------------------------------------------------
def test_the_figure_shows_every_token_with_its_id(config):
    from atlas.report.figures import tokens as figure

    _, rows, _ = table(config, "llama2", list(range(1, 10)), True)
    drawn = figure.draw(rows.assign(task="numerals"), {"slow_tokenizer": {"compared": 9, "different": 2}}, COLOURS)
    said = [text.get_text() for text in drawn.axes[0].texts]
    assert said.count("29871") == (rows.id == 29871).sum() and said.count("<bos>") == 4
    assert "2 of 9 texts split otherwise by the slow tokenizer" in said
    width = drawn.get_size_inches()[0] * 72
    assert all(p.get_x() + p.get_width() <= width for p in drawn.axes[0].patches), "nothing runs off the page"
    assert figure.visible(" a\n") == "␣a↵" and figure.visible("") == "·"
