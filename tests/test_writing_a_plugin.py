"""The code of docs/writing-a-plugin.md works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PAGE = (Path(__file__).parent.parent / "docs" / "writing-a-plugin.md").read_text()


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """The distribution of the page, and its installation in a folder that PYTHONPATH can name."""
    for name, content in re.findall(r"`([\w./]+)`:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL):
        path = tmp_path / "inverter" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", "--target", tmp_path / "site", tmp_path / "inverter"], check=True)
    return tmp_path


def test_the_plugin_of_the_page_passes_the_compliance_kit(plugin: Path, assert_tests_pass) -> None:
    assert_tests_pass(plugin / "inverter" / "tests", environment={"PYTHONPATH": str(plugin / "site")})


def test_the_chip_of_the_page_serves_predict(plugin: Path, start_server) -> None:
    model = plugin / "model.invt"
    model.write_bytes(b"INVT")
    environment = {"PYTHONPATH": str(plugin / "site")}
    server = start_server("-j", "ACME_INVERTER", "-m", f"model={model}", environment=environment)
    with server.client() as client:
        outputs = client.predict("model", {"any": np.array([[0, 1, 255]], np.uint8)})
    assert outputs["inverted"].tolist() == [[255, 254, 0]]
