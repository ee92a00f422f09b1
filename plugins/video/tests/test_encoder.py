from __future__ import annotations

import acap_runtime as acap
import pytest
from acap_runtime_video.encoder import Encoder, four_byte_start_codes


@pytest.mark.parametrize(
    ("came", "wanted"),
    [
        (b"", b""),
        (b"\0\0\1\x65a", b"\0\0\0\1\x65a"),
        (b"\0\0\0\1\x67a\0\0\1\x65b", b"\0\0\0\1\x67a\0\0\0\1\x65b"),
        (b"\0\0\0\0\0\1\x67", b"\0\0\0\1\x67"),
        (b"\0\0\1\x67\0\0\3\1\0\0\3\0\1", b"\0\0\0\1\x67\0\0\3\1\0\0\3\0\1"),
        (b"\0\0\1\x67\0\1\0\2", b"\0\0\0\1\x67\0\1\0\2"),
    ],
)
def test_start_codes_alone_become_four_bytes(came: bytes, wanted: bytes) -> None:
    assert four_byte_start_codes(came) == wanted


def test_settings_that_an_encoder_refuses_are_an_invalid_request() -> None:
    with pytest.raises(acap.InvalidRequest, match="h265 320x14 at 25 fps: expected at least 16 pixels each way"):
        Encoder(acap.StreamSettings("h265", 320, 14, 25))
    with pytest.raises(acap.InvalidRequest, match="h265 8192x16 at 25 fps: libx265 does not take that"):
        Encoder(acap.StreamSettings("h265", 8192, 16, 25))
    Encoder(acap.StreamSettings("h265", 16, 16, 25))
