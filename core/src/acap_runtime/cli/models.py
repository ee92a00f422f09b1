"""``acapruntime models``: lists the models of a running server, with their inputs and outputs."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from acap_runtime.cli import connection
from acap_runtime.cli.table import write
from acap_runtime.errors import NotFound

_TIMEOUT_S: Final = 60.0


def run(arguments: Sequence[str]) -> int:
    """Run the command. Returns exit code 1 if a requested model does not exist or cannot be loaded, or if there is no
    server.
    """
    parser = argparse.ArgumentParser(
        "acapruntime models", description="List the models of a running server.", allow_abbrev=False
    )
    parser.add_argument("model", nargs="*", help="only these, by name")
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--load", metavar="MODEL", help="load it again, or what of it is new on disk, and show it")
    change.add_argument("--unload", metavar="MODEL", help="unload it when its calls are done, and show it")
    parser.add_argument("--json", action="store_true", help="print JSON")
    connection.add_arguments(parser, _TIMEOUT_S)
    given = parser.parse_args(arguments)
    with connection.connected(parser, given) as client:
        if given.load is not None:
            client.load(given.load)
        if given.unload is not None:
            client.unload(given.unload)
        found = client.status()["models"]
    wanted = [*given.model, *(name for name in (given.load, given.unload) if name is not None)]
    known = [model["name"] for model in found]
    for name in wanted:
        if name not in known:
            raise NotFound(f"model {name!r} is unknown; the server has: {', '.join(dict.fromkeys(known)) or 'none'}")
    models = [model for model in found if not wanted or model["name"] in wanted]
    if given.json:
        write(json.dumps(models, indent=2))
    else:
        write("\n".join(line for model in models for line in _model_lines(model)) or "none")
    return 0


def _model_lines(model: Mapping[str, Any]) -> Iterable[str]:
    version = "" if model["version"] is None else f" version {model['version']}"
    labels = f" ({', '.join(model['labels'])})" if model["labels"] else ""
    chip = f" on {model['chip']}" if model["chip"] else ""
    yield f"{model['name']}{version}{labels}: {model['state']}{chip}"
    if model["error"]:
        yield f"  error   {model['error']}"
    names = [tensor["name"] for tensor in (*model["inputs"], *model["outputs"])]
    width = max(map(len, names), default=0)
    for kind, tensors in (("input", model["inputs"]), ("output", model["outputs"])):
        for tensor in tensors:
            yield f"  {kind:6}  {tensor['name']:{width}}  {tensor['dtype']} {tensor['shape']}{_quantised(tensor)}"


def _quantised(tensor: Mapping[str, Any]) -> str:
    quantisation = tensor["quantisation"]
    if quantisation is None:
        return ""
    if len(quantisation["scales"]) > 1:
        return f", {len(quantisation['scales'])} scales along dimension {quantisation['axis']}"
    return f", scale {quantisation['scales'][0]:g}, zero point {quantisation['zero_points'][0]}"
