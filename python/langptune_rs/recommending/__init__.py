"""An embedder and an item index at work."""
