"""The operator's settings: options, configuration file, models, cameras."""
