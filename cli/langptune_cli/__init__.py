"""The `langptune` command. One file per command; what a command does is in `langptune_rs`."""
