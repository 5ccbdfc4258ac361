"""Edge circuits: running a model with any set of edges, searching, attribution by gradients, curves over sizes."""
