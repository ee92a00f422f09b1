from __future__ import annotations

import os
import subprocess
import sys

import acap_runtime as acap
import acap_runtime_larod as larod_plugin
import pytest
from acap_runtime_larod.fake import build_fake


def test_a_device_that_is_there_is_ready():
    larod_plugin.probe(["axis-a8-dlpu-tflite"])


def test_one_of_several_names_is_enough(larod):
    larod.tell("devices", "axis-ace-proc", "cpu-proc")
    larod_plugin.probe(["axis-a8-ace-proc", "axis-ace-proc"])


def test_a_missing_device_is_named_with_those_that_are_there(larod):
    larod.tell("devices", "cpu-proc", "axis-a8-dlpu-tflite")
    with pytest.raises(
        acap.NotReady,
        match=r"no device ambarella-cvflow; it has axis-a8-dlpu-tflite, axis-a8-dlpu-tflite:1, cpu-proc: this chip",
    ):
        larod_plugin.probe(["ambarella-cvflow"])


def test_a_service_that_is_not_running_is_named_with_larods_reason(larod):
    larod.tell("connect-errors", "-6")
    with pytest.raises(
        acap.NotReady, match=r"Could not connect .*LAROD_ERROR_CONNECTION from larodConnect.*is its service running"
    ):
        larod_plugin.probe(["cpu-proc"])
    larod_plugin.probe(["cpu-proc"])


def test_no_library_says_where_larod_comes_from(monkeypatch):
    monkeypatch.delenv("ACAPRUNTIME_LIBLAROD")
    with pytest.raises(acap.NotReady, match=r"liblarod\.so\.1.*on an Axis device.*ACAPRUNTIME_LIBLAROD"):
        larod_plugin.probe(["cpu-proc"])


def test_the_environment_names_another_library(monkeypatch):
    monkeypatch.setenv("ACAPRUNTIME_LIBLAROD", "/host/usr/lib/liblarod.so.1")
    with pytest.raises(acap.NotReady, match=r"/host/usr/lib/liblarod\.so\.1"):
        larod_plugin.probe(["cpu-proc"])


def test_a_larod_before_version_3_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("ACAPRUNTIME_LIBLAROD", str(build_fake(tmp_path, old=True)))
    with pytest.raises(acap.NotReady, match=r" lacks .*larodGetDevice.*; larod 3 is part of AXIS OS"):
        larod_plugin.probe(["cpu-proc"])


def test_importing_loads_no_library():
    code = "import sys, acap_runtime_larod; print([name for name in ('cffi', '_cffi_backend') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"
