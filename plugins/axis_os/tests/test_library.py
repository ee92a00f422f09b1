from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import acap_runtime as acap
import pytest
from acap_runtime_axis_os.declarations import VDO
from acap_runtime_axis_os.fake import build_fakes
from acap_runtime_axis_os.library import LIBRARIES_VARIABLE, Failure
from acap_runtime_axis_os.store import open_axparameter
from acap_runtime_axis_os.vdo import open_vdo


def compiled(folder: Path, name: str, code: str, *needed: Path) -> Path:
    path = folder / name
    command = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-x", "c", "-", "-o", str(path)]
    subprocess.run([*command, "-x", "none", "-Wl,--no-as-needed", *needed], input=code, text=True, check=True)
    return path


# In a process of its own: the loader finds a library again that any test has opened, by its name alone.
PROBE = """
import acap_runtime as acap
from acap_runtime_axis_os import AxParameterStore, VdoCamera

for probe in (lambda: VdoCamera().probe("vdo"), AxParameterStore().probe):
    try:
        probe()
    except acap.NotReady as reason:
        print(reason)
"""


def test_missing_libraries_are_not_ready_and_say_what_to_do() -> None:
    environment = {name: value for name, value in os.environ.items() if name != LIBRARIES_VARIABLE}
    done = subprocess.run([sys.executable, "-c", PROBE], env=environment, capture_output=True, text=True, check=True)
    camera, store = done.stdout.splitlines()
    advice = "part of AXIS OS: run this on an Axis device, with ACAP .*, in a container .*ACAPRUNTIME_AXIS_OS_LIBRARIES"
    assert re.search(rf"libvdostream\.so\.1: cannot open shared object file.*{advice}", camera)
    assert re.search(rf"libaxparameter\.so\.1: cannot open shared object file.*{advice}", store)


def test_a_folder_without_the_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(LIBRARIES_VARIABLE, str(tmp_path))
    with pytest.raises(acap.NotReady, match=f"{tmp_path}/libvdostream.so.1: cannot open shared object file"):
        open_vdo()


def test_a_library_that_lacks_functions_names_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiled(tmp_path, "libvdostream.so.1", "void vdo_map_new(void) {}")
    monkeypatch.setenv(LIBRARIES_VARIABLE, str(tmp_path))
    with pytest.raises(acap.NotReady, match=r"libvdostream\.so\.1 lacks .*vdo_stream_new.*ACAP 3\.5 or newer"):
        open_vdo()


def test_a_library_is_opened_once(fake_libraries: Path) -> None:
    assert open_vdo() is open_vdo()


def test_what_a_library_needs_is_taken_from_its_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fake_libraries: Path
) -> None:
    # As on a device: the library needs one that needs another, and the loader finds none of them. The functions of GLib
    # are in what it needs, and not in itself.
    glib = compiled(tmp_path, "libfirst.so.0", "void g_error_free(void *error) { (void)error; }")
    gobject = compiled(tmp_path, "libsecond.so.0", "void g_object_unref(void *object) { (void)object; }", glib)
    own = VDO[VDO.index("GQuark vdo_error_quark") :]
    names = [line.split("(")[0].split()[-1].lstrip("*") for line in own.splitlines() if line.endswith(");")]
    code = "".join(f"int {name}(void) {{ return 7; }}" for name in names)
    compiled(tmp_path, "libvdostream.so.1", code, gobject)
    monkeypatch.setenv(LIBRARIES_VARIABLE, str(tmp_path))
    assert open_vdo().functions.vdo_error_quark() == 7


def test_a_library_whose_needs_are_nowhere_names_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    needed = compiled(tmp_path, "libgone.so.0", "int gone;")
    compiled(tmp_path, "libvdostream.so.1", "int here;", needed)
    needed.unlink()
    monkeypatch.setenv(LIBRARIES_VARIABLE, str(tmp_path))
    with pytest.raises(acap.NotReady, match=r"libgone\.so\.0: cannot open shared object file"):
        open_vdo()


def test_a_file_that_is_no_library_is_not_ready(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "libvdostream.so.1").write_text("no library")
    monkeypatch.setenv(LIBRARIES_VARIABLE, str(tmp_path))
    with pytest.raises(acap.NotReady, match=r"libvdostream\.so\.1.*is part of AXIS OS"):
        open_vdo()


@pytest.mark.usefixtures("fake_libraries")
def test_a_failure_says_function_message_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_AXPARAMETER", "new=16")
    with pytest.raises(Failure, match=r"^ax_parameter_new: the fake was told not to .* \(code 16\)$") as caught:
        open_axparameter().call("ax_parameter_new", b"app")
    assert (caught.value.code, caught.value.expected) == (16, False)


@pytest.mark.usefixtures("fake_libraries")
def test_an_error_of_another_domain_has_no_code_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_AXPARAMETER", "new=16,foreign=1")
    with pytest.raises(Failure) as caught:
        open_axparameter().call("ax_parameter_new", b"app")
    assert caught.value.code is None


def test_a_fake_that_cannot_be_compiled_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no-such-compiler is missing; install it"):
        build_fakes(tmp_path, "no-such-compiler")
    with pytest.raises(RuntimeError, match=r"vdostream\.c cannot be compiled"):
        build_fakes(tmp_path, "false")
