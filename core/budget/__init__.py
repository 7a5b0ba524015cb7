"""Chooses bits and group size of each linear under a target size: what may be chosen, what it costs, what is best."""
