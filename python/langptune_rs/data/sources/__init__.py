"""Where raw logs come from: one file per source, each with the same three names.

`TEMPLATE` is the source's own prompt wording; `files(folder)` finds its files, in the folder given or in its own place;
`read(files)` returns them as `RawLogs`.
"""
