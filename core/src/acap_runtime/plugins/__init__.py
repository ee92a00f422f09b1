"""Which plugins are installed, and larod's table of chips."""
