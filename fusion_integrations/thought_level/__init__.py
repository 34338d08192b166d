"""Level 2, thought-level fusion: learn from logs how queries are solved, and show that to similar ones."""
