"""From a task's block to prompts: generators, templates, corruptions, files, tokens, splits, and the tensors of them.

Reads tokenizers, never weights."""
