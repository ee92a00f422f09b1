"""A model on a chip without a server, and what it is tried with."""
