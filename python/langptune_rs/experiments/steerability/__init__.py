"""What edits of profiles do to rankings, before and after training, with controls."""
