"""One module for each way in which the prompts of a task come about, found by its name (`generator.py` says how)."""
