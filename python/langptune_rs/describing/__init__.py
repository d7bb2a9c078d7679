"""Descriptions of items: the policy writes them from reviews, rewarded by the users whose profiles find the item."""
