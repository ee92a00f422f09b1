"""The parameters of the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import acap_runtime as acap

from acap_runtime_axis_os.declarations import AXPARAMETER, ParameterError

if TYPE_CHECKING:
    from acap_runtime_axis_os.library import Library

APP_NAME: Final = "acapruntime"
"""The application whose group is used for keys without a group: root.Acapruntime."""

_UNKNOWN: Final = frozenset({ParameterError.PARAM_EXIST, ParameterError.PARAM_PATH, ParameterError.PARAM_GET})
"""A parameter that does not exist, an invalid path, and a parameter that the handler "could not deliver". The last may
be a failure as well, but an unknown key must not be an error on a device that reports it this way."""


class AxParameterStore(acap.ParameterStore):
    """All parameters, by their full path, through libaxparameter."""

    name = "axparameter"
    own = True

    def __init__(self) -> None:
        self._handle: Any = None

    def probe(self) -> None:
        library = open_axparameter()
        try:
            self._opened(library)
        except acap.Unavailable as error:
            raise acap.NotReady(str(error)) from None

    def get(self, key: str) -> str | None:
        from acap_runtime_axis_os.library import Failure  # noqa: PLC0415  # brings cffi

        library = open_axparameter()
        handle = self._opened(library)
        value = library.ffi.new("gchar **")
        try:
            library.call("ax_parameter_get", handle, key.encode(), value)
            return library.text(value[0])
        except Failure as failure:
            if failure.code in _UNKNOWN:
                return None
            raise acap.Unavailable(f"parameter {key} cannot be read: {failure}") from None
        finally:
            library.functions.g_free(value[0])

    def _opened(self, library: Library) -> Any:
        """Yield the AXParameter. An application may have only one at a time."""
        from acap_runtime_axis_os.library import Failure  # noqa: PLC0415  # brings cffi

        if self._handle is None:
            try:
                handle = library.call("ax_parameter_new", APP_NAME.encode())
            except Failure as failure:
                raise acap.Unavailable(f"the device's parameters cannot be reached: {failure}") from None
            self._handle = library.ffi.gc(handle, library.functions.ax_parameter_free)
        return self._handle


def open_axparameter() -> Library:
    """Open the library. Raises `NotReady` if it is missing or too old."""
    from acap_runtime_axis_os.library import open_library  # noqa: PLC0415  # brings cffi

    return open_library("libaxparameter.so.1", AXPARAMETER, "ax_parameter_error_quark")
