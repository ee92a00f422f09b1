"""Every chip of larod's table on this machine as it is: served, or refused with the reason and what to do."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from acap_runtime.plugins.installed import discover
from acap_runtime.plugins.larod_chips import CHIPS, NO_CHIP, Chip

COMMAND = Path(sys.executable).with_name("acapruntime")
DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "digits.tflite"
ADVICE = re.compile(
    r"pip install|apt install|install (the|libedgetpu)|run this on an Axis device|is its service running|"
    r"this chip is not in this Axis device|update AXIS OS|is one plugged in"
)
"""What a reason says there is to do, or that nothing can be done on this machine."""

Listed: TypeAlias = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def listed() -> Listed:
    """What `acapruntime chips` says of each chip, by name."""
    done = subprocess.run([COMMAND, "chips", "--json"], capture_output=True, text=True, check=True, timeout=90)
    return {row["name"]: row for row in json.loads(done.stdout)}


def test_the_list_has_every_row_of_the_table(listed: Listed) -> None:
    for chip in (NO_CHIP, *CHIPS):
        row = listed[chip.name]
        assert (row["id"], tuple(row["aliases"])) == (chip.id, chip.aliases)
        assert row["distribution"] == chip.distribution
        assert row["ready"] or ADVICE.search(row["reason"]), row["reason"]


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_a_chip_is_chosen_by_its_number_its_name_and_each_alias(chip: Chip) -> None:
    plugins = discover()
    for word in chip.words:
        for spelled in (word, word.upper()):
            chosen = plugins.select(spelled)
            assert chosen is not None
            assert (chosen.backend.chip_id, chosen.backend.name) == (chip.id, chip.name)
            assert chosen.plugin.distribution == chip.distribution


@pytest.mark.parametrize("chip", [NO_CHIP, *CHIPS], ids=lambda chip: chip.name)
def test_a_chip_serves_or_says_why_not_and_what_to_do(
    start_server: Callable[..., Any], tmp_path: Path, listed: Listed, chip: Chip
) -> None:
    row = listed[chip.name]
    word = chip.name if chip.id is None else chip.id
    if not row["ready"]:
        server = start_server("-j", word, ready=False)
        assert server.process.wait(60) == 1
        assert row["reason"] in server.log
        return
    model, inputs, shape = something_to_run(chip, tmp_path)
    server = start_server("-j", word, *([] if model is None else ["-m", f"model={model}"]))
    if model is not None:
        with server.client() as client:
            (output,) = client.predict("model", inputs).values()
        assert output.shape == shape
    assert server.stop() == 0


def something_to_run(
    chip: Chip, folder: Path
) -> tuple[Path | None, dict[str, np.ndarray[Any, Any]], tuple[int, ...] | None]:
    """A model, its inputs and its output's shape; none for chips whose models only a vendor's tools make."""
    if chip.id == 1:
        path = folder / "echo.toml"
        path.touch()
        return path, {"data": np.zeros(3, np.uint8)}, (3,)
    if chip.id == 2:
        return DIGITS, {"data": np.zeros((1, 32, 32, 3), np.uint8)}, (1, 10)
    if not chip.name.endswith("-proc"):
        return None, {}, None
    # ACE neither scales nor crops, and CVflow gives planes alone: this much every one of them does.
    target, shape = ("rgb-planar", (1, 3, 48, 64)) if chip.id == 9 else ("rgb-interleaved", (1, 48, 64, 3))
    path = folder / "conversion.toml"
    path.write_text(
        'image.input.format = "nv12"\nimage.input.size = [64, 48]\n'
        f'image.output.format = "{target}"\nimage.output.size = [64, 48]\n'
    )
    return path, {"data": np.zeros((1, 72, 64), np.uint8)}, shape
