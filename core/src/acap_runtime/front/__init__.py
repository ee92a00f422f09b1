"""The front: listening, wiring, stopping."""
