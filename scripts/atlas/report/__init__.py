"""What a person reads: wording, HTML pages (each with its template beside it), the look at the data, the summary with
one module a part in `sections/`, and `figures/` with one module a figure.

Reads tables; imports neither torch nor a model."""
