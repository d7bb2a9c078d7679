"""The two models that are trained: the policy, which writes profiles, and the embedder, which ranks by them."""
