"""The worker's entry point: ``python -m acap_runtime.worker FD``. Only the supervisor starts it."""

import sys

from acap_runtime.worker.child import main

main(int(sys.argv[1]))
