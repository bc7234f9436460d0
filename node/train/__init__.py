"""Local training, in a process of its own: the only package of the node that imports torch."""
