"""Runs a model on a chip without a server, and makes inputs to try it with."""
