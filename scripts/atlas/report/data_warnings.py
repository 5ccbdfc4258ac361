"""What looks wrong in a task's data: each warning says what to change, and what one takes stands in the constants."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

from atlas.core.statistics import interval_columns
from atlas.prompts.clean_scores import SIDES, refusal
from atlas.report.data_tables import TaskPrompts, answer_table, remedy_of, row_of
from atlas.report.wording import count, interval, listing, percent

FEW_PROMPTS = 30  # of a split; an interval over fewer says little
FEW_IN_LAYOUT = 10  # prompts of one layout, over which its means run
MANY_REJECTED = 0.1  # share of the prompts read
FEW_KEPT = 0.5  # share that passes the filter
LOW_ACCURACY = 0.5  # top-1 on clean prompts
OTHER_ACCURACY = 0.1  # difference of two accuracies whose intervals do not meet,
ENOUGH_TO_COMPARE = 20  # each over as many prompts
COMMON_ANSWER = 0.25  # share of the most common answer,
UNEVEN = 1.3  # and over the share of each if all were as frequent
ONE_SIDED = 8  # prompts of one answer, none of them on the other side of the split
REPEATED = 0.05  # share of prompts that repeat another
KNOWN_SEQUENCES = 0.5  # share of held-out prompts whose member sequence is searched on too
ANSWER_IN_CORRUPTED = 0.5  # share of corrupted prompts that hold the clean answer
LEFT_IN_CORRUPTED = 0.5  # share of the clean logit difference that corrupted prompts still have
UNLIKE_LENGTHS = 0.25  # share of prompts whose answers have unequal numbers of tokens


@dataclass(frozen=True)
class Warned:
    """Something that looks wrong. ``stops``: the study will be refused for it."""

    name: str
    text: str
    remedy: str
    stops: bool = False


def refused(data: TaskPrompts, scores: pd.DataFrame) -> Iterator[Warned]:
    """What `refusal` says, in two parts."""
    said = refusal(data.prompts, data.settings["groups"], data.settings["allow_negative_clean"])
    if said:
        text, _, remedy = said.partition("; ")
        yield Warned("refused", text, remedy, stops=True)


def low_accuracy(data: TaskPrompts, scores: pd.DataFrame) -> Iterator[Warned]:
    """Below a half, or no better than the same answer to every prompt."""
    right, answers = row_of(scores, "top1"), answer_table(data.prompts)
    common, share = answers["answer"].iloc[0], answers.iloc[0][list(SIDES)].sum() / len(data.prompts)
    said = f"the model's first choice is right on {percent(right, 100)}"
    remedy = "choose wordings or a model that fit the task, or keep what it answers: filter: {probability_ratio: 2}"
    if len(answers) > 1 and right["ci_low"] <= share:
        text = f"{said}, no better than {common!r} to every prompt ({100 * share:.0f} %)"
        yield Warned("no better than one answer", text, remedy)
    elif right["value"] < LOW_ACCURACY:
        yield Warned("low accuracy", f"{said} of the clean prompts", remedy)


def weak_difference(data: TaskPrompts, scores: pd.DataFrame) -> Iterator[Warned]:
    """A logit difference that may be nothing, or that is negative and allowed."""
    search = data.of_split("search")
    kept = search["logit_diff"][search["kept"]].to_numpy()
    if not len(kept):
        return
    row = interval_columns(data.bootstrap.mean(kept))
    said = f"the clean logit difference of the prompts to search on is {interval(row, 2)}"
    remedy = "give incorrect answers that the model finds less likely, or more prompts"
    if row["value"] <= 0 and data.settings["allow_negative_clean"]:
        yield Warned("negative difference", f"{said}, so percent of full means nothing", remedy)
    elif row["value"] > 0 >= row["ci_low"]:
        yield Warned("weak difference", f"{said}, perhaps nothing", remedy)


def few_kept(data: TaskPrompts, scores: pd.DataFrame) -> Iterator[Warned]:
    """By the filter."""
    share = data.prompts["kept"].mean()
    if 0 < share < FEW_KEPT:
        text = f"the filter keeps {100 * share:.0f} % of the prompts, and findings hold for these alone"
        yield Warned("few pass the filter", text, "relax filter, or choose wordings or a model that fit the task")


def few_prompts(data: TaskPrompts, scores: pd.DataFrame) -> Iterator[Warned]:
    """Of either side, of those that passed the filter."""
    if data.of_split("held_out").empty:
        text = "nothing is held out, so results are reported on the prompts that were searched on"
        yield Warned("nothing held out", text, f"set held_out_share, and {data.more_prompts()} where they are few")
    sizes = {named: int(data.of_split(split)["kept"].sum()) for split, named in SIDES.items()}
    names = {named: named if n > 1 else named.replace("prompts", "prompt") for named, n in sizes.items()}
    few = [f"{n} {names[named]}" for named, n in sizes.items() if 0 < n < FEW_PROMPTS]
    if few:
        yield Warned("few prompts", f"there are only {listing(few)}, so intervals are wide", data.more_prompts())


def many_rejected(data: TaskPrompts, scores: pd.DataFrame) -> Iterator[Warned]:
    """With the chief reason."""
    share = len(data.rejected) / data.read
    if share > MANY_REJECTED:
        reason = str(data.rejected["reason"].value_counts().index[0])
        text = f"{100 * share:.0f} % of {count(data.read, 'prompt')} were rejected, most for: {reason}"
        yield Warned("many rejected", text, remedy_of(reason))


def uneven_answers(data: TaskPrompts, scores: pd.DataFrame) -> Iterator[Warned]:
    """One answer alone, one too often, or one on a single side of the split."""
    answers = answer_table(data.prompts)
    total = answers[list(SIDES)].sum(axis=1)
    common, share = answers["answer"].iloc[0], total.iloc[0] / len(data.prompts)
    if len(answers) == 1:
        text = f"every answer is {common!r}, so always writing it does the task"
        yield Warned("one answer", text, "add prompts with other answers")
    elif share > max(COMMON_ANSWER, UNEVEN / len(answers)):
        text = f"{common!r} is the answer of {100 * share:.0f} % of the prompts ({len(answers)} different answers)"
        yield Warned("uneven answers", text, "give every answer about as many prompts")
    on_purpose = data.info.get("hold_out") == "sequences"  # the answer goes with the sequence
    if data.of_split("held_out").empty or on_purpose:
        return
    lone = answers[(total >= ONE_SIDED) & (answers[list(SIDES)].min(axis=1) == 0)]
    if len(lone):
        named = listing(map(repr, lone["answer"].head(5))) + (" and others" if len(lone) > 5 else "")
        text = f"{named} {'is' if len(lone) == 1 else 'are'} the answer on one side of the split alone"
        yield Warned("answers on one side", text, "shuffle the rows, or stratify the split by a column of the answers")


def repeated_prompts(data: TaskPrompts, scores: pd.DataFrame) -> Iterator[Warned]:
    """Prompts that the model reads as the same, within a task and on both sides of the split."""
    tokens = data.prompts["tokens"].map(tuple)
    repeats = int(tokens.duplicated().sum())
    different = "take the repeated rows out of the file" if data.from_file else "give more members or fillers"
    if repeats / len(tokens) > REPEATED:
        text = f"{repeats} of {count(len(tokens), 'prompt')} repeat another, so intervals are too narrow"
        yield Warned("repeated prompts", text, different)
    held_out = data.prompts["split"] == "held_out"
    known = int(tokens[held_out].isin(set(tokens[~held_out])).sum())
    if known:
        text = f"{known} of {count(held_out.sum(), 'held-out prompt')} are also searched on, so they test nothing new"
        yield Warned("searched prompts held out", text, different)


def known_sequences(data: TaskPrompts, scores: pd.DataFrame) -> Iterator[Warned]:
    """Held-out prompts that show members which are searched on in the same order."""
    members = data.prompts["members"].map(tuple)
    held_out = (data.prompts["split"] == "held_out") & (members.map(len) > 0)
    if not held_out.any() or data.info.get("hold_out") == "templates":
        return
    known = members[held_out].isin(set(members[data.prompts["split"] == "search"]))
    if known.mean() > KNOWN_SEQUENCES:
        text = f"{known.sum()} of {count(len(known), 'held-out prompt')} show a member sequence that is searched on too"
        yield Warned("known sequences", f"{text}: they test fillers, not sequences", "set hold_out: sequences")


def weak_corruption(data: TaskPrompts, scores: pd.DataFrame) -> Iterator[Warned]:
    """Corrupted prompts that are no different, or keep the answer or much of the score."""
    other = "give other corrupted texts" if data.from_file else "choose another corruption"
    alike = int((data.prompts["tokens"].map(tuple) == data.prompts["corrupted_tokens"].map(tuple)).sum())
    if alike:
        text = f"{count(alike, 'corrupted prompt')} equal their clean ones, so ablation changes nothing there"
        yield Warned("not corrupted", text, other)
    share = data.prompts["answer_in_corrupted"].mean()
    if share > ANSWER_IN_CORRUPTED:
        text = f"the clean answer stands in {100 * share:.0f} % of the corrupted prompts"
        yield Warned("answer in corrupted", text, other if data.from_file else "set forbid_answer: true")
    clean, corrupted = (row_of(scores, name)["value"] for name in ("logit_diff", "corrupted_logit_diff"))
    if clean > 0 and corrupted > LEFT_IN_CORRUPTED * clean:
        text = f"corrupted prompts keep {100 * corrupted / clean:.0f} % of the clean logit difference"
        yield Warned("weak corruption", f"{text}: little is taken away", other)


def other_accuracy(data: TaskPrompts, scores: pd.DataFrame) -> Iterator[Warned]:
    """Between wordings, and between sides."""
    right = scores[(scores["metric"] == "top1") & (scores["prompts"] >= ENOUGH_TO_COMPARE)]
    wordings = right[right["template"] != ""].assign(of=lambda rows: rows["template"].map("of {!r}".format))
    sides = right[right["split"].isin(SIDES)].assign(of=lambda rows: "of " + rows["split"].map(SIDES))
    for name, rows, remedy in (
        ("wordings differ", wordings, "look at the examples of the worse one, or leave it out"),
        ("sides differ", sides, "hold out at random: another seed, or more prompts"),
    ):
        if len(rows) < 2:
            continue
        low, high = (rows.loc[rows["value"].idxmin()], rows.loc[rows["value"].idxmax()])
        if high["ci_low"] > low["ci_high"] and high["value"] - low["value"] >= OTHER_ACCURACY:
            shown = [f"{percent(row, 100)} {row['of']}" for row in (low, high)]
            yield Warned(name, f"the model's first choice is right on {listing(shown)}", remedy)


def one_wording(data: TaskPrompts, scores: pd.DataFrame) -> Iterator[Warned]:
    """Whether one wording alone, or none named, cannot be told from a file."""
    if data.prompts["template"].nunique() > 1:
        return
    if data.from_file:
        text = "the file names one wording or none, so wordings cannot be told apart"
        yield Warned("one wording", text, "add rows of other wordings, and name each in a column (columns.template)")
    else:
        text = "all prompts have one wording, so a circuit may be one of the wording"
        yield Warned("one wording", text, "give more templates")


def unlike_lengths(data: TaskPrompts, scores: pd.DataFrame) -> Iterator[Warned]:
    """Answers of several tokens whose incorrect ones have more or fewer; each token costs log-probability."""
    if "answer_tokens" not in data.prompts:
        return
    right, wrong = (data.prompts[f"{name}_tokens"].map(len) for name in ("answer", "incorrect"))
    share = (right != wrong).mean()
    if share > UNLIKE_LENGTHS:
        text = f"answer and incorrect answer have unequal numbers of tokens in {100 * share:.0f} % of the prompts"
        remedy = "give incorrect answers of as many tokens as the answers"
        yield Warned("unlike lengths", f"{text}: the longer one is less likely for that alone", remedy)


def small_layouts(data: TaskPrompts, scores: pd.DataFrame) -> Iterator[Warned]:
    """Groups of equal layout over which means are taken."""
    small = [n for n in (layout["prompts"] for layout in data.info.get("layouts", ())) if n < FEW_IN_LAYOUT]
    if small:
        text = f"{count(len(small), 'layout')} of tokens with fewer than {FEW_IN_LAYOUT} prompts: their means are rough"
        yield Warned("small layouts", text, "add prompts of these lengths, or raise file.min_layout to leave them out")


def other_tokens(data: TaskPrompts, scores: pd.DataFrame) -> Iterator[Warned]:
    """The slow tokenizer beside the fast one disagrees."""
    slow = data.info.get("slow_tokenizer")
    if slow and slow["different"]:
        text = f"the fast tokenizer splits {slow['different']} of {slow['compared']} texts unlike tokenizer.model"
        yield Warned(
            "other tokens", f"{text}, e.g. {slow['example']!r}", "make tokenizer.json from tokenizer.model again"
        )


CHECKS: tuple[Callable[[TaskPrompts, pd.DataFrame], Iterator[Warned]], ...] = (
    refused,
    low_accuracy,
    weak_difference,
    few_kept,
    few_prompts,
    many_rejected,
    uneven_answers,
    repeated_prompts,
    known_sequences,
    weak_corruption,
    other_accuracy,
    one_wording,
    unlike_lengths,
    small_layouts,
    other_tokens,
)
