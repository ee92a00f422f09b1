"""The command ``acapruntime``."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from acap_runtime.cli import cameras, chips, config, models, new_plugin, plugins, serve, status
from acap_runtime.cli.doctor import command as doctor
from acap_runtime.cli.predict import command as predict
from acap_runtime.cli.verify import command as verify
from acap_runtime.contract.unexpected import log_traceback, unexpected
from acap_runtime.errors import AcapError

_COMMANDS: Final[Mapping[str, Callable[[Sequence[str]], int]]] = MappingProxyType(
    {
        "serve": serve.run,
        "chips": chips.run,
        "cameras": cameras.run,
        "plugins": plugins.run,
        "config": config.run,
        "status": status.run,
        "models": models.run,
        "predict": predict.run,
        "doctor": doctor.run,
        "verify": verify.run,
        "new-plugin": new_plugin.run,
    }
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command, or the server if no command is named, as on the original's command line. Returns an exit code: 0
    for success, 1 for a start that failed or a chip that is not ready, 2 for a command line that does not parse.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = _COMMANDS.get(given[0]) if given else None
    try:
        return command(given[1:]) if command else serve.run(given)
    except AcapError as error:
        print(f"acapruntime: error: {error}", file=sys.stderr)  # noqa: T201 - the command's own voice
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has closed it (head, a pager). There is nothing to report, also not when Python
        # flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - operators get one line; the traceback is on request
        print(f"acapruntime: error: {unexpected(error)}", file=sys.stderr)  # noqa: T201
        if os.environ.get("ACAPRUNTIME_VERBOSE", "").casefold() in ("1", "yes", "true", "on"):
            logging.basicConfig(level=logging.DEBUG)  # commands other than serve have no log of their own
        log_traceback(logging.getLogger(__name__), "where that was", error)
        return 1
