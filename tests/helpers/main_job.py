"""The main job with installed wheels alone: a model reads a picture and a camera's frames. Prints JSON.

Run by the Python of a fresh machine, which has the packages and nothing of this repository but the digits example.
"""

import json
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from acap_runtime.client import connect
from PIL import Image

DIGITS = Path(sys.argv[1])
CLIP = "lavfi:testsrc2=size=640x480:rate=25"
SQUARE = '[[inputs]]\nname = "image"\nshape = [1, 3, 300, 300]\n'
"""A model whose planar picture is wider than vectors are: Debian 13's libyuv ended the process over it."""

with tempfile.TemporaryDirectory() as folder:
    square = Path(folder, "square.toml")
    square.write_text(SQUARE)
    options = ["--socket", f"{folder}/main.sock", "--chip", "2", "--camera", f"clip={CLIP}"]
    options += ["--model", f"digits={DIGITS / 'digits.tflite'}", "--model", f"square={square},chip=1"]
    server = subprocess.Popen([Path(sys.executable).with_name("acapruntime"), *options])
    try:
        with connect(f"unix://{folder}/main.sock", timeout_s=60, wait_s=60) as client:
            with Image.open(DIGITS / "pictures" / "7-a.png") as picture:
                outputs = client.predict("digits", np.asarray(picture.convert("RGB")))
            with client.stream("nv12", 640, 480, framerate=10) as stream:
                seen = client.predict_stream("square", stream)
                frame = stream.frame(seen.reference)
            (planar,) = seen.outputs.values()
    finally:
        server.terminate()
        code = server.wait(30)

sys.stdout.write(
    json.dumps(
        {
            "python": platform.python_version(),
            "av": version("av"),
            "digit": int(outputs["digit"].argmax()),
            "frame": len(frame.data),
            "planar": planar.shape,
            "colours": len(np.unique(planar)),
            "stopped": code,
        }
    )
)
