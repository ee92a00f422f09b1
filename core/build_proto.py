"""Make ``proto/api.binpb``, the descriptor set of all messages, from the .proto files (needs grpcio-tools)."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

from grpc_tools import protoc

PROTO = Path(__file__).parent / "src" / "acap_runtime" / "proto"


def build() -> bytes:
    with TemporaryDirectory() as folder:
        target = Path(folder) / "api.binpb"
        includes = [f"-I{PROTO}", f"-I{files('grpc_tools') / '_proto'}"]
        sources = sorted(str(path) for path in PROTO.glob("*.proto"))
        if protoc.main(["protoc", *includes, "--include_imports", f"--descriptor_set_out={target}", *sources]):
            raise SystemExit("protoc failed")
        return target.read_bytes()


if __name__ == "__main__":
    (PROTO / "api.binpb").write_bytes(build())
