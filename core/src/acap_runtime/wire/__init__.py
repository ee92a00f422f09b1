"""The wire forms of tensors and shared memory that clients send."""
