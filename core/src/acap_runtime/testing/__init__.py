"""The compliance kit for plugin authors: subclass a contract, give it a `backend` fixture, run pytest."""
