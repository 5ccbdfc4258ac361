"""One model: where it comes from, what is refused, its weights, its forward passes, its activations.

`block.py` is the transformer layer, `families/` says for each family which ingredients it has. Nothing here knows of
circuits being searched."""
