"""Opening a driver's library: what a plugin's operator reads where it is not there."""

from __future__ import annotations

import ctypes
from pathlib import Path

import acap_runtime as acap
import pytest


def open_c(name: str = "libc.so.6", **options) -> ctypes.CDLL:
    return acap.open_library(ctypes.CDLL, name, advice="install Acme's SDK", variable="ACME_LIBRARY", **options)


def test_a_library_that_is_there_is_opened() -> None:
    assert open_c(functions=["abs"]).abs(-7) == 7


def test_a_missing_library_says_what_to_do() -> None:
    reason = r"^libacme\.so\.1: cannot open .*; install Acme's SDK, or name its file in ACME_LIBRARY$"
    with pytest.raises(acap.NotReady, match=reason):
        open_c("libacme.so.1")


def test_without_a_variable_none_is_named() -> None:
    with pytest.raises(acap.NotReady, match=r"; install it$"):
        acap.open_library(ctypes.CDLL, "libacme.so.1", advice="install it")


def test_the_environment_names_another_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACME_LIBRARY", "")
    open_c()
    monkeypatch.setenv("ACME_LIBRARY", str(tmp_path / "libacme.so"))
    with pytest.raises(acap.NotReady, match=f"^{tmp_path}/libacme.so: cannot open"):
        open_c()


def test_a_file_that_is_no_library_is_not_ready(tmp_path: Path) -> None:
    (tmp_path / "libacme.so").write_text("no library")
    with pytest.raises(acap.NotReady, match=r"libacme\.so: .*; install Acme's SDK"):
        open_c(str(tmp_path / "libacme.so"))


def test_functions_that_a_library_lacks_are_named() -> None:
    with pytest.raises(acap.NotReady, match=r"^libc\.so\.6 lacks acme_open, acme_run; install Acme's SDK"):
        open_c(functions=["abs", "acme_open", "acme_run"])
