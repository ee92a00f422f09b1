#!/usr/bin/env python3
"""Open a video stream and fetch frames, using stubs that protoc makes from ../protos and nothing from acap-runtime."""

from __future__ import annotations

import sys

import grpc
from videocapture_pb2 import (  # type: ignore[import-not-found]
    VDO_FORMAT_YUV,
    VDO_TIMESTAMP_UTC,
    DeleteStreamRequest,
    GetFrameRequest,
    NewStreamRequest,
    StreamSettings,
)
from videocapture_pb2_grpc import VideoCaptureStub  # type: ignore[import-not-found]


def main() -> int:
    address = sys.argv[1] if len(sys.argv) > 1 else "unix:///tmp/acap-runtime.sock"
    settings = StreamSettings(
        format=VDO_FORMAT_YUV, width=224, height=224, framerate=10, timestamp_type=VDO_TIMESTAMP_UTC
    )
    try:
        with grpc.insecure_channel(address) as channel:
            capture = VideoCaptureStub(channel)
            stream = capture.NewStream(NewStreamRequest(settings=settings), timeout=60, wait_for_ready=True).stream_id
            for _ in range(10):
                frame = capture.GetFrame(GetFrameRequest(stream_id=stream), timeout=10)
                print(f"{frame.sequence_nbr:6}  {frame.type}  {frame.size} bytes  {frame.timestamp} us")
            capture.DeleteStream(DeleteStreamRequest(stream_id=stream), timeout=10)
    except grpc.RpcError as error:
        print(f"{error.code().name}: {error.details()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
