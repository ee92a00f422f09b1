"""What the front and its worker processes share: processes, messages, shared memory."""
