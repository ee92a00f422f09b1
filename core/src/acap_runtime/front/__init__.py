"""The front process: wiring, listening, startup and shutdown."""
