"""What one key of a recipe does: a run for each of its values and each seed, compared with the recipe's own value."""
