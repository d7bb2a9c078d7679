"""Answers to a user: a profile for a history, and recommendations for a profile."""
