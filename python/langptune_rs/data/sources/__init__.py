"""Where raw logs come from: one file per source, each with the same two names.

`FILES` says in a line which files it needs; `open_logs(files)` finds them and returns their readers as `RawLogs`.
"""
