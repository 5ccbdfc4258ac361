"""Why prompts are rejected: the names under which they are counted (docs/bad_input.md lists them)."""

EQUAL = "answer and incorrect answer are equal"
SAME_TOKENS = "answer and incorrect answer have the same tokens"
ENDS_WITH_SPACE = "the text ends with a space"
BEGINS_WITH_BOS = "the text begins with the BOS token, which prepend_bos adds"
SPECIAL = "a special token stands in the text"
UNKNOWN = "a token is unknown to the tokenizer"
SEVERAL_TOKENS = "an answer is not one token"
MERGES = "the answer merges with the text before it"
OTHER_TOKENS = "the text has other tokens when its answer follows"
OTHER_TOKENS_SEVERAL = "the text has other tokens when an answer follows"
OTHER_LENGTH = "the corrupted text has another number of tokens"
OTHER_ANSWER = "the answer has other tokens after the corrupted text"
ONE_BEGINS = "one answer begins with the other"
MEMBER_MERGES = "a member merges with the text beside it"
MEMBER_SEVERAL = "a member is not one token"
MEMBER_LOST = "a member is not found in the tokens"
MEMBERS_MOVED = "corrupted members stand at other positions"
DRIFTED = "the text of its tokens has other tokens"
OTHER_LAYOUT = "another layout than most prompts"

# what to do, where every prompt of a task is rejected
REMEDIES = {
    ENDS_WITH_SPACE: "take the space away, or set join: exact",
    BEGINS_WITH_BOS: "take it out of the texts, or set prepend_bos: false",
    SPECIAL: "take it out of the texts",
    UNKNOWN: "use words that the tokenizer knows",
    SAME_TOKENS: "give answers that differ in their tokens",
    SEVERAL_TOKENS: "set multi_token: true to have several",
    MEMBER_SEVERAL: "set multi_token: true to have several",
}
