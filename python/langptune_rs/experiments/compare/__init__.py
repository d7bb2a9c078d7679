"""Every method on the same sessions: fitted, tuned on validation, ranked once, and tested against each other."""
