"""``acapruntime doctor``."""
