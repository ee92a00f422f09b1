"""What unmodified clients of TensorFlow Serving get: their stubs are Google's, in an environment without ours."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from client_environments import run

pytestmark = pytest.mark.timeout(600)  # the environment may have to be made first


def test_a_prediction_is_answered(
    start_server: Callable[..., Any], write: Callable[..., str], tensorflow_serving_python: Path
) -> None:
    echo = write("echo", 'inputs = [{name = "x", dtype = "float32", shape = [1, 3]}]')
    server = start_server("-j", "1", "-m", f"echo={echo}")
    script = "predict_by_tensorflow_serving.py"
    answer = json.loads(run(tensorflow_serving_python, script, server.address, "echo", "x", 1.5, -2.25, 3))
    (output,) = answer["outputs"].values()
    assert output["dtype"] == "DT_FLOAT"
    assert [dim["size"] for dim in output["tensorShape"]["dim"]] == ["1", "3"]
    assert struct.unpack("<3f", base64.b64decode(output["tensorContent"])) == (1.5, -2.25, 3)
    assert answer["modelSpec"]["name"] == "echo"
