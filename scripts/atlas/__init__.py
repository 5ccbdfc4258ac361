"""Circuit Atlas: find, compare and explain circuits in transformer language models."""

# In this order: each imports only from itself and from those before it (tests/workflow/test_house.py)
PACKAGES: tuple[str, ...] = ("core", "store", "prompts", "model", "circuit", "edges", "heads", "compare", "generate")
PACKAGES += ("geometry", "report", "proof", "shipped", "study")
