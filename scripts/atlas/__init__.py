"""Circuit Atlas: find, compare and explain circuits in transformer language models."""
