"""The code of docs/writing-a-plugin.md works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import environments
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "writing-a-plugin.md").read_text()
EXAMPLE = ROOT / "examples" / "third_party_chip" / "src" / "acme_npu" / "__init__.py"


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """The distribution of the page, and its installation in a folder that PYTHONPATH can name."""
    for name, content in re.findall(r"`([\w./]+)`:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL):
        path = tmp_path / "inverter" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    environments.install_alone(tmp_path / "inverter", tmp_path / "site")
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
    client_of_the_page = [sys.executable, plugin / "inverter" / "client.py", server.address]
    done = subprocess.run(client_of_the_page, capture_output=True, text=True, check=True)
    assert done.stdout == "[[255 254   0]]\n"
    assert f"`{done.stdout.strip()}`" in PAGE


def test_the_driver_of_the_page_is_the_examples() -> None:
    section = PAGE[PAGE.index("## 4. The driver") : PAGE.index("## 5.")]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert f"\n\n{block}\n\n" in EXAMPLE.read_text()
