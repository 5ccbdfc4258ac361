"""From a task's block to prompts: members, templates, files, tokens, alignment, splits, and the tensors made of them.

Reads tokenizers, never weights."""
