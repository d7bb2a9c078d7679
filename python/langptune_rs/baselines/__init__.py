"""Other methods of the paper's tables. Each file has one function, `rank(dataset, sessions, ...)`: the 1-based rank of
every session's target among the items outside its history, int64 (n,)."""
