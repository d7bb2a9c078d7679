"""What a run is worth: the comparison of methods on held-out sessions, its tables and its report."""
