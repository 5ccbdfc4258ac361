"""Node circuits: ablation, search, evaluation, controls, stability, and the data of a (model, task, split)."""
