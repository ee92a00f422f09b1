"""The worker's entry: ``python -m acap_runtime.worker FD``, started by the supervisor and by nobody else."""

import sys

from acap_runtime.worker.child import main

main(int(sys.argv[1]))
