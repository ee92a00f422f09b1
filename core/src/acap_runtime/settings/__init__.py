"""What the operator sets: options, configuration file, models."""
