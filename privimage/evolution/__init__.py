"""Private Evolution: a population of synthetic images that sensitive images vote on. Nothing is trained on them."""
