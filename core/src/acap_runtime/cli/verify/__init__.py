"""``acapruntime verify``."""
