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
FEW_OF_LAYOUT = "too few prompts of its layout"
NO_MEAN = "no prompt of its layout to search on, or none with as long an answer"

# What to do about prompts that are rejected for a reason
REMEDIES = {
    EQUAL: "give another incorrect answer",
    SAME_TOKENS: "give answers that differ in their tokens",
    ENDS_WITH_SPACE: "take the space off the end of the text, or set join: exact",
    BEGINS_WITH_BOS: "take it out of the texts, or set prepend_bos: false",
    SPECIAL: "take it out of the texts",
    UNKNOWN: "use words that the tokenizer knows",
    SEVERAL_TOKENS: "set multi_token: true, or choose answers of one token",
    MERGES: "end the text where a new word begins",
    OTHER_TOKENS: "end the text where a new word begins",
    OTHER_TOKENS_SEVERAL: "end the text where a new word begins",
    OTHER_LENGTH: "corrupt by words of as many tokens",
    OTHER_ANSWER: "end the corrupted text as the text ends",
    ONE_BEGINS: "give another incorrect answer",
    MEMBER_MERGES: "set members apart from the text beside them by spaces",
    MEMBER_SEVERAL: "set multi_token: true, or choose members of one token",
    MEMBER_LOST: "write the members in the text as in their columns",
    MEMBERS_MOVED: "corrupt by members of as many tokens",
    DRIFTED: "replace unusual spaces and characters in the text",
    OTHER_LAYOUT: "write texts of as many tokens, with their members at the same places",
    FEW_OF_LAYOUT: "give more prompts of its length, or lower file.min_layout",
    NO_MEAN: "give more prompts of its length, or search on more (held_out_share)",
}
