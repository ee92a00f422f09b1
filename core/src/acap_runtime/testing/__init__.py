"""The compliance kit for plugin authors: subclass a contract, give it a `backend` or `camera` fixture, run pytest."""
