#!/usr/bin/env python3
"""Print parameters of the device. Uses the client library of acap-runtime."""

from __future__ import annotations

import argparse
import sys

from acap_runtime.client import CallFailed, connect


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("keys", nargs="+", metavar="KEY", help="such as root.Brand.Brand")
    parser.add_argument("--address", default="unix:///tmp/acap-runtime.sock", help="[%(default)s]")
    arguments = parser.parse_args()
    try:
        with connect(arguments.address) as client:
            for key in arguments.keys:
                print(f"{key}={client.parameter(key)}")
    except CallFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
