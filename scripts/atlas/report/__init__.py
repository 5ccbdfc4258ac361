"""What a person reads: wording, pages, findings, summary; `figures/` holds one module a figure.

Reads tables; imports neither torch nor a model."""
