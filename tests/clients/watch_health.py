"""Watch the health of a name with grpcio-health-checking alone, in any number of streams, until the server ends them.

The arguments are the server's address, the name and the number of streams. A line tells a status when all streams have
it, the last one the code that they ended with.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

address, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
told: Counter[tuple[int, str]] = Counter()
lock = threading.Lock()


def tell(number: int, word: str) -> None:
    with lock:
        told[number, word] += 1
        if told[number, word] == count:
            print(word, flush=True)  # noqa: T201


def watch(stub: health_pb2_grpc.HealthStub) -> None:
    number = 0
    try:
        for response in stub.Watch(health_pb2.HealthCheckRequest(service=name), wait_for_ready=True):
            tell(number, health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))
            number += 1
    except grpc.RpcError as error:
        tell(number, error.code().name)


with grpc.insecure_channel(address) as channel:
    stub = health_pb2_grpc.HealthStub(channel)
    threads = [threading.Thread(target=watch, args=(stub,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
