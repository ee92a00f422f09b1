"""Tensors and shared memory as clients send them."""
