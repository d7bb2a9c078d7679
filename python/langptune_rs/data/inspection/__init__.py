"""What is in a prepared data set, as numbers, tables and charts."""
