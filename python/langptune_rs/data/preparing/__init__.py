"""From raw logs to a data set: two passes, filters, sessions, splits, and a report of what leaks."""
