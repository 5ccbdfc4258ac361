"""Parts of the summary, one module each: sentences chosen by rule from the numbers, and the table they rest on."""
