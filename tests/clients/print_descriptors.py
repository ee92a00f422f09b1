"""Print the files that modules of stubs were made of, and those that they import, as a FileDescriptorSet."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet


def add(file: Any, found: dict[str, bytes]) -> None:
    for needed in file.dependencies:
        add(needed, found)
    found[file.name] = file.serialized_pb


found: dict[str, bytes] = {}
for name in sys.argv[1:]:
    add(importlib.import_module(name).DESCRIPTOR, found)
files = FileDescriptorSet()
for content in found.values():
    files.file.add().ParseFromString(content)
sys.stdout.buffer.write(files.SerializeToString())
