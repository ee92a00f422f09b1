"""What plugins implement: one module for each kind of plugin, and what they share."""
