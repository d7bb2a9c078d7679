"""What makes many processes one run."""
