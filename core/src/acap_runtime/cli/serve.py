"""``acapruntime serve``, and ``acapruntime`` with the original's flags."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from acap_runtime.cli.discovery import discover
from acap_runtime.errors import InvalidRequest
from acap_runtime.link.malloc import keep_large_buffers
from acap_runtime.settings.options import add_arguments
from acap_runtime.settings.reading import read_settings

_EPILOG = """other commands: acapruntime chips, cameras, plugins, config, doctor, verify, new-plugin, and for a running
server status, models, predict (each with --help).
Every option can also be given by the environment variable in brackets; the command line goes first."""


def run(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        "acapruntime", description="Serve models over gRPC.", epilog=_EPILOG, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=version("acap-runtime"))
    # The original tolerates empty arguments, which scripts produce from unset variables.
    parser.add_argument("nothing", nargs="*", help=argparse.SUPPRESS)
    add_arguments(parser)
    given = vars(parser.parse_args(arguments))
    if surplus := [word for word in given["nothing"] if word]:
        parser.error(f"unrecognized arguments: {' '.join(surplus)}")
    try:
        settings = read_settings(given)
    except InvalidRequest as error:
        parser.error(str(error))
    logging.basicConfig(
        level=logging.DEBUG if settings.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    keep_large_buffers()
    # Workers are started by exec while gRPC's threads run. gRPC's handlers for fork would only get in the way.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    # The library's own log lines, in a format of their own, are about clients' failed handshakes and similar events.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from acap_runtime.front.server import serve  # noqa: PLC0415 - the malloc settings come before gRPC's first buffer

    for library in ("asyncio", "grpc", "httpx", "httpcore", "watchfiles"):
        logging.getLogger(library).setLevel(logging.WARNING)
    plugins = discover(settings.blocked)
    for plugin in plugins.rows:
        if plugin.problem:
            logging.getLogger(__name__).warning(
                "plugin %s of %s is not used: %s", plugin.name, plugin.distribution, plugin.problem
            )
    asyncio.run(serve(settings, plugins, lambda: read_settings(given)))
    return 0
