"""Ask for the health of names with grpcio-health-checking alone; print the statuses, or codes of errors, as JSON.

The arguments are the server's address and the names.
"""

from __future__ import annotations

import json
import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

address, *names = sys.argv[1:]


def check(stub: health_pb2_grpc.HealthStub, name: str) -> str:
    try:
        response = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5, wait_for_ready=True)
    except grpc.RpcError as error:
        return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


with grpc.insecure_channel(address) as channel:
    stub = health_pb2_grpc.HealthStub(channel)
    json.dump({name: check(stub, name) for name in names}, sys.stdout)
