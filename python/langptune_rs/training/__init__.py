"""Training: RLSO for the policy, contrastive learning for the embedder, and the loop that alternates them."""
