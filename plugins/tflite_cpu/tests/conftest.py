import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MODELS = Path(os.environ.get("ACAP_TEST_MODELS", Path(__file__).parents[4] / "shared" / "models"))


@pytest.fixture
def models() -> Path:
    if not MODELS.is_dir():
        pytest.skip(f"no test models in {MODELS}: name their directory in ACAP_TEST_MODELS")
    return MODELS


@dataclass(frozen=True)
class Tensor:
    """A tensor of a model with one operator. `dtype` is a name of the schema's TensorType."""

    name: str | bytes | None
    dtype: str
    shape: tuple[int, ...]
    scales: Sequence[float] = ()
    zero_points: Sequence[int] = ()
    axis: int = 0


@pytest.fixture
def tensor() -> type[Tensor]:
    return Tensor


@pytest.fixture
def build_model(tmp_path: Path) -> Callable[..., Path]:
    """Write a model that is one operator, from all inputs to all outputs."""
    schema: Any = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="ai-edge-litert brings the schema")
    import flatbuffers

    def pack(tensor: Tensor) -> Any:
        packed = schema.TensorT()
        packed.name = tensor.name
        packed.type = getattr(schema.TensorType, tensor.dtype)
        packed.shape = [1 if size == -1 else size for size in tensor.shape]
        packed.shapeSignature = list(tensor.shape) if -1 in tensor.shape else None
        packed.quantization = schema.QuantizationParametersT()
        packed.quantization.scale = list(tensor.scales)
        packed.quantization.zeroPoint = list(tensor.zero_points)
        packed.quantization.quantizedDimension = tensor.axis
        packed.buffer = 0
        return packed

    def build(operator: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], **options: object) -> Path:
        graph, code, node, model = schema.SubGraphT(), schema.OperatorCodeT(), schema.OperatorT(), schema.ModelT()
        graph.tensors = [pack(tensor) for tensor in (*inputs, *outputs)]
        graph.inputs = node.inputs = list(range(len(inputs)))
        graph.outputs = node.outputs = list(range(len(inputs), len(graph.tensors)))
        graph.operators = [node]
        if operator in vars(schema.BuiltinOperator):
            code.builtinCode = getattr(schema.BuiltinOperator, operator)
            kind = f"{operator.title().replace('_', '')}Options"
            node.builtinOptions = getattr(schema, f"{kind}T")()
            node.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            vars(node.builtinOptions).update(options)
        else:
            code.builtinCode = schema.BuiltinOperator.CUSTOM
            code.customCode = operator
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
        code.version = 1
        model.version = 3
        model.subgraphs, model.operatorCodes, model.buffers = [graph], [code], [schema.BufferT()]
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), b"TFL3")
        path = tmp_path / f"{operator}.tflite"
        path.write_bytes(builder.Output())
        return path

    return build
