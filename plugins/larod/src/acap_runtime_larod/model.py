"""Models for the contract, on top of a session that may have to be remade."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import acap_runtime as acap

from acap_runtime_larod.conversions import Parameter, job_parameters, load_parameters
from acap_runtime_larod.failure import LarodFailure
from acap_runtime_larod.session import Session, Task

_LOG = logging.getLogger(__name__)

_LARGEST_INSTANCE: Final = 15
"""More equal devices than any Axis device has, so that a typing error gets a clear answer."""


def load(devices: Sequence[str], path: Path, options: Mapping[str, str]) -> acap.Model:
    instance = _whole_number(options, "instance", _LARGEST_INSTANCE)
    parameters: dict[str, Parameter] = {}
    if "disable-winograd" in options:
        parameters["disable-winograd"] = _whole_number(options, "disable-winograd", 1)
    if not path.is_file():
        raise acap.InvalidRequest(f"{path}: expected a model file, got something that is no file")
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise acap.InvalidRequest(f"{path}: expected a model file: {error.strerror}") from None
    try:
        return LarodModel(Task(path.name, tuple(devices), lambda _: parameters, instance=instance, file=file))
    except BaseException:
        os.close(file)
        raise


def prepare(devices: Sequence[str], conversion: acap.Conversion) -> acap.Model:
    model = LarodModel(
        Task(
            str(conversion),
            tuple(devices),
            lambda device: load_parameters(device, conversion),
            job_parameters(conversion),
        )
    )
    came = [(spec.dtype, spec.shape) for spec in (*model.inputs, *model.outputs)]
    wanted = [(spec.dtype, spec.shape) for spec in (*conversion.inputs, *conversion.outputs)]
    if came != wanted:
        model.close()
        raise acap.DeviceError(f"larod describes {conversion} by tensors {came}: expected {wanted}")
    model.inputs, model.outputs = conversion.inputs, conversion.outputs
    return model


def _whole_number(options: Mapping[str, str], option: str, highest: int) -> int:
    text = options.get(option, "0")
    if text not in map(str, range(highest + 1)):
        raise acap.InvalidRequest(f"{option}: expected a number from 0 to {highest}, got {text!r}")
    return int(text)


class LarodModel(acap.Model):
    """A model in larod's service.

    A run fails with `Unavailable` if it loses the connection or finds that the service has forgotten the model after a
    restart. It is unknown if the job was done, and a retry would spend the client's deadline. The next run connects and
    loads again before it runs. The worker does not restart for that, so models on other connections go on. The model
    file stays open meanwhile, so the same model is loaded again.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._session: Session | None = self._opened()
        self.inputs, self.outputs = self._session.inputs, self._session.outputs
        self._forms = self._session.inputs, self._session.outputs

    def run(self, inputs: Mapping[str, acap.Array]) -> Mapping[str, acap.Array]:
        if self._session is None:
            self._session = self._opened_again()
        try:
            results = self._session.run([inputs[spec.name] for spec in self.inputs])
        except LarodFailure as failure:
            if failure.needs_reload:
                self._end_session()
            raise failure.as_error(f"{self._task.title} could not be run") from None
        return {spec.name: result for spec, result in zip(self.outputs, results, strict=True)}

    def close(self) -> None:
        self._end_session()
        if self._task.file >= 0:
            os.close(self._task.file)

    def _opened(self) -> Session:
        try:
            return Session(self._task)
        except LarodFailure as failure:
            on = " or ".join(self._task.devices)
            raise failure.as_error(f"{self._task.title} cannot be loaded on {on}") from None

    def _opened_again(self) -> Session:
        try:
            session = self._opened()
        except acap.NotReady as problem:
            # A starting service may not have all its devices yet.
            raise acap.Unavailable(f"{self._task.title} is not loaded for the moment: {problem}") from None
        if (session.inputs, session.outputs) != self._forms:
            session.close()
            raise acap.DeviceError(
                f"{self._task.title} has other tensors since larod was restarted: expected {self._forms}; load it anew"
            )
        _LOG.info("%s is loaded again after larod was away", self._task.title)
        return session

    def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.close()
