"""Models by name: their versions, files and calls."""
