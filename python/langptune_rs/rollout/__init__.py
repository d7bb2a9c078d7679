"""Rollouts: sampled profiles, their log-probabilities and their reward."""
