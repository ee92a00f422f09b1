"""Models in TensorFlow Serving's layout, and its requests, as JSON has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BAD = "nonsense = 1"
"""A model file that the debug chip does not load."""


def version(folder: Path, number: int, content: str = "") -> Path:
    """A version in TensorFlow Serving's layout; returns the model's folder."""
    place = folder / str(number)
    place.mkdir(parents=True)
    (place / "model.toml").write_text(content)
    return folder


def reload(*models: dict[str, Any], **fields: Any) -> tuple[str, Any]:
    return "HandleReloadConfigRequest", {"config": {"model_config_list": {"config": models}}, **fields}


def config(name: str, path: object, **fields: Any) -> dict[str, Any]:
    return {"name": name, "base_path": str(path), "model_platform": "tensorflow", **fields}
