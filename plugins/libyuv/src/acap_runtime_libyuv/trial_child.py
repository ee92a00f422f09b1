"""A process that calls functions of a library for one that must not die of them.

It takes calls from its standard input and gives back the memory of each when it is done. Every server starts it, so
it imports little of the standard library and nothing else.
"""

import ctypes
import marshal
import os
import sys

_PR_SET_DUMPABLE = 4


def main(file: str) -> None:
    # What it dies of is known afterwards: it leaves no core and no crash report.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
    library = ctypes.CDLL(file)
    for function, before, arguments in marshal.load(sys.stdin.buffer):  # noqa: S302  # its parent wrote it
        memory = ctypes.create_string_buffer(before, len(before))
        # A number in a tuple is a place in the memory.
        places = (ctypes.byref(memory, *each) if isinstance(each, tuple) else each for each in arguments)
        getattr(library, function)(*places)
        os.write(sys.stdout.fileno(), memory)


if __name__ == "__main__":
    main(sys.argv[1])
