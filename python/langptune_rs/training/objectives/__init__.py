"""Losses of the policy step, chosen by name."""
