"""One module per family of figures: `draw(tables, ...)` returns a matplotlib Figure, `style.save` writes it."""
