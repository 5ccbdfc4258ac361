"""Published claims about how models represent order, each beside the number that the tables of a study give for it."""
