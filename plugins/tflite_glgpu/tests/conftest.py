import ctypes
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import acap_runtime as acap
import pytest

MODELS = Path(os.environ.get("ACAP_TEST_MODELS", Path(__file__).parents[4] / "shared" / "models"))
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
DRIVERS = [CACHE / "acap-runtime" / "swiftshader" / "usr" / "lib" / "chromium", Path("/usr/lib/chromium")]


@pytest.fixture
def models() -> Path:
    if not MODELS.is_dir():
        pytest.skip(f"no test models in {MODELS}: name their directory in ACAP_TEST_MODELS")
    return MODELS


def find_swiftshader() -> tuple[Path | None, str]:
    """The folder of a Vulkan driver that computes on the CPU, and what to do where there is none."""
    named = os.environ.get("ACAP_TEST_SWIFTSHADER")
    places = [Path(named)] if named else DRIVERS
    for folder in places:
        if (folder / "vk_swiftshader_icd.json").is_file() and (folder / "libvk_swiftshader.so").is_file():
            return folder, ""
    return None, (
        f"no software Vulkan driver in {' or '.join(map(str, places))}: apt-get download chromium-common; "
        f"dpkg-deb -x chromium-common_*.deb {DRIVERS[0].parents[2]}; or name its folder in ACAP_TEST_SWIFTSHADER"
    )


def use_swiftshader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VK_DRIVER_FILES", str(folder / "vk_swiftshader_icd.json"))
    monkeypatch.setenv("ACAPRUNTIME_ALLOW_SOFTWARE_GPU", "yes")
    # Beside the driver lies a Vulkan loader, for machines that have none: programs that are started now find it in
    # this folder, and LiteRT in this process is given the one that is loaded already.
    if (folder / "libvulkan.so.1").is_file():
        monkeypatch.setenv("LD_LIBRARY_PATH", str(folder), prepend=os.pathsep)
        ctypes.CDLL(str(folder / "libvulkan.so.1"))


@pytest.fixture
def software_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make SwiftShader the GPU of this process and those it starts."""
    folder, problem = find_swiftshader()
    if folder is None:
        pytest.skip(problem)
    use_swiftshader(folder, monkeypatch)


@pytest.fixture
def some_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """SwiftShader if it is here; the machine's own GPU, if any, otherwise, or where hardware is what is asked for."""
    folder, _ = find_swiftshader()
    if folder is not None and os.environ.get("ACAPRUNTIME_REQUIRE_HARDWARE") != "1":
        use_swiftshader(folder, monkeypatch)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever this machine has, processes that are started now find no GPU."""
    monkeypatch.setenv("VK_DRIVER_FILES", str(tmp_path / "none.json"))


@pytest.fixture
def larod(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[object, ...]]]:
    """Put a larod in the place of the real one, ready or with a reason why not; gives the list of what it is asked."""

    def be(model: acap.Model | None = None, reason: str = "no larod here") -> list[tuple[object, ...]]:
        asked: list[tuple[object, ...]] = []

        def probe(*arguments: object) -> None:
            asked.append(("probe", *arguments))
            if model is None:
                raise acap.NotReady(reason)

        def load_model(*arguments: object) -> acap.Model | None:
            asked.append(("load_model", *arguments))
            return model

        monkeypatch.setattr("acap_runtime_larod.probe", probe)
        monkeypatch.setattr("acap_runtime_larod.load_model", load_model)
        return asked

    return be


@dataclass(frozen=True)
class Tensor:
    """A tensor of a model. `dtype` is a name of the schema's TensorType; `content` makes it a constant."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    content: bytes | None = None


@dataclass(frozen=True)
class Operator:
    """An operator, its tensors by their positions in the model, and its options as the schema spells them."""

    name: str
    inputs: Sequence[int]
    outputs: Sequence[int]
    options: dict[str, Any] | None = None


@pytest.fixture
def tensor() -> type[Tensor]:
    return Tensor


@pytest.fixture
def operator() -> type[Operator]:
    return Operator


@pytest.fixture
def build_model(tmp_path: Path) -> Callable[..., Path]:
    """Write a model. `signature` has names for its inputs, `signature_outputs` says how many outputs it tells of."""
    schema: Any = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="ai-edge-litert brings the schema")
    import flatbuffers

    def build(
        tensors: Sequence[Tensor],
        operators: Sequence[Operator],
        inputs: Sequence[int],
        outputs: Sequence[int],
        signature: Sequence[str] = (),
        signature_outputs: int | None = None,
    ) -> Path:
        model, graph = schema.ModelT(), schema.SubGraphT()
        model.version, model.subgraphs = 3, [graph]
        model.buffers, model.operatorCodes = [schema.BufferT()], []
        graph.tensors, graph.operators = [], []
        graph.inputs, graph.outputs = list(inputs), list(outputs)
        for tensor in tensors:
            packed = schema.TensorT()
            packed.name, packed.type = tensor.name, getattr(schema.TensorType, tensor.dtype)
            packed.shape = [1 if size == -1 else size for size in tensor.shape]
            packed.shapeSignature = list(tensor.shape) if -1 in tensor.shape else None
            packed.buffer = 0
            if tensor.content is not None:
                packed.buffer = len(model.buffers)
                model.buffers.append(schema.BufferT())
                model.buffers[-1].data = list(tensor.content)
            graph.tensors.append(packed)
        for operator in operators:
            code, node = schema.OperatorCodeT(), schema.OperatorT()
            code.builtinCode = getattr(schema.BuiltinOperator, operator.name)
            code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
            node.opcodeIndex = len(model.operatorCodes)
            node.inputs, node.outputs = list(operator.inputs), list(operator.outputs)
            if operator.options is not None:
                kind = {"CONV_2D": "Conv2DOptions"}.get(operator.name, f"{operator.name.title()}Options")
                node.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
                node.builtinOptions = getattr(schema, f"{kind}T")()
                vars(node.builtinOptions).update(operator.options)
            model.operatorCodes.append(code)
            graph.operators.append(node)
        if signature:
            named = schema.SignatureDefT()
            named.signatureKey, named.subgraphIndex = "serving_default", 0
            named.inputs = [_map_of(schema, name, inputs[position]) for position, name in enumerate(signature)]
            named.outputs = [
                _map_of(schema, f"out{position}", index) for position, index in enumerate(outputs[:signature_outputs])
            ]
            model.signatureDefs = [named]
        builder = flatbuffers.Builder()
        builder.Finish(model.Pack(builder), b"TFL3")
        path = tmp_path / f"{'_'.join(operator.name for operator in operators)}.tflite"
        path.write_bytes(builder.Output())
        return path

    return build


def _map_of(schema: Any, name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name, index
    return entry
