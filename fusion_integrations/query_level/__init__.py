"""Level 1, query-level fusion: learn from logs which candidate should answer, and decide at call time."""
