"""Generation under ablation: prompts, decoding, what is written, scores."""
