"""The recommender: an embedder and an item index."""
