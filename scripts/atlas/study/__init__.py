"""A study's configuration: what it may say, what is refused, what follows from it; and a finished study, opened."""
