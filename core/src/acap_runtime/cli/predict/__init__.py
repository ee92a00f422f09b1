"""``acapruntime predict``."""
