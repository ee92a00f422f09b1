"""acap-runtime plugin: video from files, RTSP cameras, V4L2 devices and FFmpeg's filters."""

from __future__ import annotations

import acap_runtime as acap

from acap_runtime_video.cameras import FileCamera, FilterCamera, RtspCamera, V4l2Camera

__all__ = ["FileCamera", "FilterCamera", "RtspCamera", "V4l2Camera"]


@acap.hookimpl
def acap_runtime_cameras() -> list[acap.Camera]:
    return [FileCamera(), RtspCamera(), V4l2Camera(), FilterCamera()]
