"""Level 3, model-level fusion: teach a small student the best logged answers; it is one more candidate."""
