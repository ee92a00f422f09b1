"""Finds installed plugins, and holds larod's table of chips."""
