"""How the shipped model was made: its corpus and its training."""
