"""File formats into rows: blocks of lines, JSON lines, separated text and parquet, all with the same schema."""
