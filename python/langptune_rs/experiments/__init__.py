"""Experiments on a run: the comparison of methods on held-out sessions, its tables and its report."""
