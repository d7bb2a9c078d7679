"""Where raw logs come from: one file for each source, with the same two names.

`FILES` says in one line which files the source needs. `open_logs(files)` finds them and returns their readers as
`RawLogs`. The names of the sources are in `registry`.
"""
