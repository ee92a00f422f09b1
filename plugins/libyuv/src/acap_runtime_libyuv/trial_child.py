"""A process that calls library functions for another process that must survive their crashes.

It reads calls from standard input and returns the memory of each when it is done. Every server starts it, so it imports
little of the standard library and nothing else.
"""

import ctypes
import marshal
import os
import sys

_PR_SET_DUMPABLE = 4


def main(file: str) -> None:
    # The parent learns the cause of a crash anyway, so leave no core file and no crash report.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)
    library = ctypes.CDLL(file)
    for function, before, arguments in marshal.load(sys.stdin.buffer):  # noqa: S302  # its parent wrote it
        memory = ctypes.create_string_buffer(before, len(before))
        # A number in a tuple is an offset in the memory.
        places = (ctypes.byref(memory, *each) if isinstance(each, tuple) else each for each in arguments)
        getattr(library, function)(*places)
        os.write(sys.stdout.fileno(), memory)


if __name__ == "__main__":
    main(sys.argv[1])
