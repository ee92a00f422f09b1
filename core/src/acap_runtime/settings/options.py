"""The server's settings, all in one place: for each, its option, default, parser and help text.

`acap_runtime.settings.reading` finds their values.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from acap_runtime.errors import InvalidRequest
from acap_runtime.settings.camera_source import CameraSource, parse_camera
from acap_runtime.settings.model_source import ModelSource, parse_model
from acap_runtime.settings.option_values import HIGHEST_PORT, integer, parse_parameters, parse_switch, seconds

VARIABLE_PREFIX: Final = "ACAPRUNTIME_"


def _option(
    flags: str, default: Any, parse: Callable[[str], Any], metavar: str, help_: str, *, repeatable: bool = False
) -> Any:
    metadata = {"flags": flags.split(), "parse": parse, "metavar": metavar, "help": help_, "repeatable": repeatable}
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a server. Each option is a field."""

    config: Path | None = _option(
        "--config", None, Path, "FILE", "TOML file of settings: the options' names, and tables for models and cameras"
    )
    verbose: bool = _option("-v --verbose", False, parse_switch, "", "extended logging: a line per request too")
    address: str = _option("-a --address", "0.0.0.0", str, "ADDR", "address to listen on when a port is given")  # noqa: S104 - the original's default
    port: int = _option("-p --port", 0, integer(0, HIGHEST_PORT), "PORT", "TCP port; 0 for the unix socket")
    socket: Path = _option(
        "--socket",
        Path("/tmp/acap-runtime.sock"),  # noqa: S108 - the original's default
        Path,
        "PATH",
        "unix socket to listen on without a port",
    )
    run_for_s: float = _option("-t --run-for", 0.0, seconds(0), "SECONDS", "stop after that many seconds; 0 for never")
    certificate: Path | None = _option("-c --certificate", None, Path, "FILE", "TLS certificate chain, PEM")
    key: Path | None = _option("-k --key", None, Path, "FILE", "TLS private key, PEM")
    client_ca: Path | None = _option(
        "--client-ca", None, Path, "FILE", "demand client certificates signed by these authorities, PEM"
    )
    chips: tuple[str, ...] = _option(
        "-j --chip", (), str, "CHIP",
        "chip for inference, by number, name or alias; a second -j names the chip that converts images",
        repeatable=True,
    )  # fmt: skip
    models: tuple[ModelSource, ...] = _option(
        "-m --model", (), parse_model,
        "[NAME=]PATH[,OPTION=VALUE]",
        "model to serve: a file, or a folder with one folder for each version; options are its chip, instances, queue, "
        "versions, labels, warm_up, batch, batch_delay and the chip's own",
        repeatable=True,
    )  # fmt: skip
    model_dir: Path | None = _option(
        "--model-dir", None, Path, "DIR", "folder of models: files, named without their suffix, and folders of versions"
    )
    model_control: bool = _option(
        "--model-control",
        False,
        parse_switch,
        "",
        "let clients load and unload models over TCP too, as those on the unix socket may",
    )
    cameras: tuple[CameraSource, ...] = _option(
        "--camera", (), parse_camera, "[NAME=]SOURCE",
        "where video comes from, such as test-pattern, rtsp://HOST/PATH, FILE, /dev/video0; clients get the first "
        "unless they name another",
        repeatable=True,
    )  # fmt: skip
    parameters: str | None = _option(
        "--parameters", None, parse_parameters, "FILE|URL|STORE",
        "where parameters come from: a file of KEY=VALUE lines, a camera (https://HOST), a plugin's store",
    )  # fmt: skip
    parameters_credentials: Path | None = _option(
        "--parameters-credentials", None, Path, "FILE",
        "who asks the camera for parameters: a file with one line user:password that only its owner can read",
    )  # fmt: skip
    parameters_ca: Path | None = _option(
        "--parameters-ca", None, Path, "FILE", "trust a camera with these certificates, PEM, instead of the system's"
    )
    parameters_override: bool = _option(
        "-o --override", False, parse_switch, "", "let the device's parameters override the command line"
    )
    instances: int = _option("--instances", 1, integer(1, 64), "N", "copies of each model that run side by side")
    threads: int | None = _option(
        "--threads", None, integer(1, 256), "N", "threads of each instance, where the chip has that option"
    )
    run_timeout_s: float = _option(
        "--run-timeout", 30.0, seconds(0.05), "SECONDS", "a run that takes longer is ended with its worker"
    )
    load_timeout_s: float = _option("--load-timeout", 300.0, seconds(0.05), "SECONDS", "the same for loading a model")
    queue: int = _option("--queue", 64, integer(1, 100000), "N", "calls that may wait for each model")
    on_demand_models: int = _option(
        "--on-demand-models", 16, integer(0, 100000), "N",
        "model files that clients on the unix socket may have loaded by path, at most; 0 for none",
    )  # fmt: skip
    max_streams: int = _option("--max-streams", 64, integer(1, 10000), "N", "video streams that may be open at once")
    stream_lease_s: float = _option(
        "--stream-lease", 600.0, seconds(0.1), "SECONDS", "a stream that nobody uses for that long is deleted"
    )
    kept_frames: int = _option(
        "--kept-frames", 3, integer(1, 100), "N", "frames of each stream that stay fetchable after models ran on them"
    )
    max_message_size: int = _option(
        "--max-message-size", 64, integer(1, 2046), "MIB", "largest request, and largest input in shared memory"
    )
    grace_s: float = _option(
        "--grace", 5.0, seconds(0), "SECONDS", "time that running calls have when the server stops"
    )
    blocked: tuple[str, ...] = _option(
        "--block", (), str, "PLUGIN", "leave out a plugin, by its name or its distribution's", repeatable=True
    )

    def __post_init__(self) -> None:
        for option, named in (("model", self.models), ("camera", self.cameras)):
            names = Counter(each.name for each in named)
            if twice := sorted(name for name, count in names.items() if count > 1):
                raise InvalidRequest(f"--{option}: expected each name once, got {', '.join(twice)} again")

    @property
    def max_message_nbytes(self) -> int:
        """`max_message_size` in bytes."""
        return self.max_message_size << 20


def add_arguments(parser: argparse.ArgumentParser, names: Sequence[str] | None = None) -> None:
    """Add the options of the settings called `names` to a parser, by default of all.

    An option that is not given is absent from the parsed result.
    """
    for field in dataclasses.fields(Settings):
        if names is not None and field.name not in names:
            continue
        flags, help_ = field.metadata["flags"], field.metadata["help"]
        shared: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
        note = "" if field.default in (None, (), False, 0.0) else f" (default {field.default})"
        text = f"{help_}{note} [{variable_name(field)}{', several with blanks between' * field.metadata['repeatable']}]"
        if field.metadata["parse"] is parse_switch:
            parser.add_argument(*flags, action="store_const", const="yes", help=text, **shared)
        else:
            action = "append" if field.metadata["repeatable"] else "store"
            parser.add_argument(*flags, action=action, metavar=field.metadata["metavar"], help=text, **shared)


def variable_name(field: dataclasses.Field[Any]) -> str:
    """Return the environment variable that sets a field of `Settings`, such as ``ACAPRUNTIME_RUN_TIMEOUT``."""
    return VARIABLE_PREFIX + option_name(field).replace("-", "_").upper()


def option_name(field: dataclasses.Field[Any]) -> str:
    """Return the option that sets a field of `Settings`, such as ``run-timeout``."""
    return str(field.metadata["flags"][-1]).removeprefix("--")
