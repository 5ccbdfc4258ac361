"""Generation under ablation: prompts, decoding, scores."""
