"""Supervises the process of a camera: starts it for the first capture, ends it with the last, and opens captures again
after a failure.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, Final

from acap_runtime.contract.camera import StreamSettings
from acap_runtime.contract.unexpected import log_unexpected, unexpected
from acap_runtime.errors import AcapError, InvalidRequest, NotFound, NotReady, Unavailable
from acap_runtime.link.messages import pack_settings
from acap_runtime.link.process import LONGEST_DEATH_S, WorkerProcess, probe_all
from acap_runtime.link.restarts import RestartBackoff, RestartPolicy
from acap_runtime.plugins.installed import InstalledCamera
from acap_runtime.video.capture import RemoteCapture

_LOG = logging.getLogger(__name__)
_OPEN_TIME_S: Final = 20.0
"""Seconds that a source may take to open."""
_STALL_TIME_S: Final = 5.0
"""Seconds that an open source may go without a frame."""
_CHECK_S: Final = 1.0


class CameraWorker:
    """The process of one camera, and its captures: one for each set of stream settings in use."""

    def __init__(
        self,
        camera: InstalledCamera,
        *,
        kept_frames: int,
        restarts: RestartPolicy = RestartPolicy(budget=None),
        verbose: bool = False,
    ) -> None:
        self.camera = camera
        self.failures = 0
        """The number of times that the camera could not be opened or broke off."""
        self.last_error = ""
        """The reason of the last failure; empty if there was none."""
        self._kept_frames = kept_frames
        self._restarts = restarts
        self._verbose = verbose
        self._captures: dict[StreamSettings, tuple[RemoteCapture, asyncio.Task[None]]] = {}
        self._process: WorkerProcess | None = None
        self._watching: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    @property
    def pid(self) -> int | None:
        """The process id, while there is a process."""
        return self._process.pid if self._process is not None else None

    @property
    def state(self) -> str:
        """The state in a word: idle without captures, opening, open, or failed until it is open again."""
        captures = [capture for capture, _ in self._captures.values()]
        if any(capture.error is not None for capture in captures):
            return "failed"
        if not captures:
            return "idle"
        return "open" if all(capture.settled.is_set() for capture in captures) else "opening"

    async def open(self, settings: StreamSettings) -> RemoteCapture:
        """Return the capture with these settings, which all callers share. Each gives it back with `release`.

        Raises `InvalidRequest` for settings that the camera does not support, and `NotReady` or `Unavailable` if it
        gives no video.
        """
        if settings not in self._captures:
            capture = RemoteCapture(settings, self._kept_frames)
            self._captures[settings] = capture, asyncio.create_task(self._keep_open(capture))
        capture, _ = self._captures[settings]
        capture.users += 1
        try:
            await capture.settled.wait()
            capture.check()
        except BaseException:
            self.release(capture)
            raise
        return capture

    def release(self, capture: RemoteCapture) -> None:
        """Give a capture back; the last one ends it, and the last capture the process."""
        capture.users -= 1
        if capture.users or self._captures.get(capture.settings, (None,))[0] is not capture:
            return
        _, task = self._captures.pop(capture.settings)
        task.cancel()
        capture.detach(Unavailable(f"the stream of {self.camera} was closed"))
        if not self._captures:
            self._end_process()

    async def stop(self) -> None:
        """End every capture and the process, within 3 seconds, or 6 if it has to be killed."""
        for capture, task in self._captures.values():
            task.cancel()
            capture.detach(Unavailable("the server stops"))
        self._captures.clear()
        async with self._starting:
            self._end_process()
        if self._ending is not None:
            await asyncio.wait((self._ending,))

    def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            self._ending = asyncio.create_task(process.end())

    async def _keep_open(self, capture: RemoteCapture) -> None:
        """Open a capture again whenever it fails. Returns if it fails before it was ever open."""
        backoff = RestartBackoff(self._restarts)
        while True:
            try:
                process = await self._running_process()
                error = await self._follow(capture, process)
            except (AcapError, OSError) as problem:
                error = problem if isinstance(problem, AcapError) else Unavailable(f"{self.camera}: {problem}")
            except Exception as problem:  # noqa: BLE001 - after a bug in this program too, the camera is opened again
                log_unexpected(_LOG, f"{self.camera} was lost", problem)
                error = Unavailable(f"{self.camera}: {unexpected(problem)}")
            if not isinstance(error, InvalidRequest):
                self.failures += 1
                self.last_error = str(error)
            if not capture.settled.is_set():
                # It was never open, so nothing waits for it to come back: those who asked for it get the error.
                _LOG.info("%s, %s: %s", self.camera, capture.settings, error)
                capture.detach(error)
                return
            if isinstance(error, NotReady | NotFound | InvalidRequest):
                error = Unavailable(str(error))  # there was video, so the camera may come back
            backoff.note_death()
            _LOG.error("%s, %s: %s; opened again in %.2g s", self.camera, capture.settings, error, backoff.delay_s)
            capture.detach(error)
            await backoff.wait()

    async def _follow(self, capture: RemoteCapture, process: WorkerProcess) -> AcapError:
        """Have the process open a capture, and watch it until it fails. Returns the reason."""
        opening = time.monotonic()
        capture.progress = opening
        message = {"settings": pack_settings(capture.settings), "slots": capture.slots}
        capture.attach(process.open_channel(message))
        while True:
            await asyncio.wait((capture.lost,), timeout=_CHECK_S)
            if capture.lost.done():
                return await self._reason(capture.lost.result(), process)
            silent_s = time.monotonic() - capture.progress
            limit_s = _OPEN_TIME_S if capture.progress == opening else _STALL_TIME_S
            if silent_s > limit_s:
                did = "did not open" if capture.progress == opening else "gave no frame of"
                process.kill(f"was killed: it {did} {capture.settings} for {silent_s:.1f} s")
                return await self._reason(None, process)

    async def _reason(self, error: AcapError | None, process: WorkerProcess) -> AcapError:
        if error is not None:
            return type(error)(f"{self.camera}: {error}")
        if self._watching is not None:
            await asyncio.wait((self._watching,), timeout=LONGEST_DEATH_S)
        if self._process is process and process.kill_reason is not None:
            self._end_process()  # its death takes time, and the next process waits for it
        gone = self._process is not process
        how = process.described_end if gone else "gave up the stream and said no reason"
        return Unavailable(f"the process of {self.camera} {how}")

    async def _running_process(self) -> WorkerProcess:
        async with self._starting:
            if self._ending is not None:
                # The last process may still have the device open. A cancelled wait does not cancel its end.
                await asyncio.wait((self._ending,))
            if self._process is None:
                config = _config(self.camera, probe=False, verbose=self._verbose)
                self._process = await WorkerProcess.start(str(self.camera), config)
                self._watching = asyncio.create_task(self._watch(self._process))
                _LOG.info("%s started, process %d", self.camera, self._process.pid)
            return self._process

    async def _watch(self, process: WorkerProcess) -> None:
        await process.wait()
        if self._process is process:
            self._process = None


def _config(camera: InstalledCamera, *, probe: bool, verbose: bool = False) -> dict[str, Any]:
    return {
        "kind": "camera",
        "address": camera.plugin.address,
        "name": camera.camera.name,
        "source": camera.source,
        "probe": probe,
        "verbose": verbose,
    }


async def probe_cameras(cameras: Sequence[InstalledCamera], timeout_s: float) -> list[AcapError | None]:
    """Probe cameras all at once, each in a process of its own. Returns each one's error, None for ready."""
    return await probe_all([(str(camera), _config(camera, probe=True)) for camera in cameras], timeout_s)
