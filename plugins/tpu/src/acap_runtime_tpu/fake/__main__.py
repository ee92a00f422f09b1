"""``python -m acap_runtime_tpu.fake FILE`` compiles the stand-in for libedgetpu into FILE."""

from __future__ import annotations

import argparse
from pathlib import Path

from acap_runtime_tpu.fake import build

parser = argparse.ArgumentParser("python -m acap_runtime_tpu.fake", description="Compile a stand-in for libedgetpu.")
parser.add_argument("file", type=Path, help="the library to write")
build(parser.parse_args().file)
