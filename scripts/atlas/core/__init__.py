"""What everything else is said in: errors, components and circuits, the graph of edges, metrics, bootstrap, positions.

No files, no models, no prompts' texts; imports nothing of the library."""
