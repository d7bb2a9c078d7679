"""One module for each source: raw files in, `Logs` out."""
