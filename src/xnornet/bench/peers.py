"""Other engines, where installed (`pip install xnornet[peers]`): ONNX Runtime and OpenVINO, one layer each.

A peer that is missing, or has no such layer, raises `SkippedError` with the reason, never ImportError.
"""

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np

from xnornet.bench.baselines import FLOAT32_TOLERANCE, INT8_TOLERANCE, TO_NHWC
from xnornet.bench.workload import CHAIN_LENGTH, Array, Builder, Chain, Contestant, Problem, SkippedError

_Node = tuple[str, list[str], list[str], dict[str, Any]]
"""Operator, inputs, outputs, attributes."""


def load(name: str) -> ModuleType:
    """Import an optional package. SkippedError if it is not installed, or its libraries do not load."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise SkippedError(f"{name.partition('.')[0]} is not installed") from None
    except ImportError as error:
        raise SkippedError(f"{name.partition('.')[0]} cannot be imported: {error}") from None


def onnxruntime_session(model: bytes | str, threads: int) -> Any:
    """An ONNX Runtime session on the CPU with `threads` threads that do not spin while others are timed."""
    ort = load("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def bound_run(session: Any, x: Array) -> Callable[[], Any]:
    """A function that runs a session of one input and one output without copying either; returns the binding."""
    ort = load("onnxruntime")
    binding = session.io_binding()
    value = ort.OrtValue.ortvalue_from_numpy(x)  # shares the memory of x, see `run`
    binding.bind_ortvalue_input(session.get_inputs()[0].name, value)
    binding.bind_output(session.get_outputs()[0].name, "cpu")

    def run(_held: object = (x, value)) -> Any:  # the memory, of which the runtime has no reference of its own
        session.run_with_iobinding(binding)
        return binding

    return run


def bound_output(binding: Any) -> Array:
    """The output of a `bound_run`."""
    return binding.copy_outputs_to_cpu()[0]


def onnxruntime_float32(problem: Problem, threads: int = 1) -> Contestant:
    """ONNX Runtime's Conv, or MatMul for a dense layer, float32 in and out."""
    if problem.layer.is_dense:
        nodes: list[_Node] = [("MatMul", ["x", "w"], ["y"], {})]
        weight = problem.weight[:, :, 0, 0].T
    else:
        nodes = [("Conv", ["x", "w"], ["y"], _window(problem))]
        weight = problem.weight
    return _onnx_contestant(problem, threads, nodes, {"w": weight}, FLOAT32_TOLERANCE)


def onnxruntime_int8(problem: Problem, threads: int = 1) -> Contestant:
    """ONNX Runtime's QLinearConv or QLinearMatMul, between QuantizeLinear and DequantizeLinear: float32 in and out.

    Activations uint8 (int8 ones have no fast kernel on x86), weights int8 with a scale per output channel.
    """
    dense = problem.layer.is_dense
    w_scale = np.abs(problem.weight).max(axis=(1, 2, 3)) / np.float32(127)
    weight = np.rint(problem.weight / w_scale[:, None, None, None]).astype(np.int8)
    constants = {
        "x_scale": np.float32(np.abs(problem.x).max() / 127),
        "y_scale": np.float32(np.abs(problem.float_result).max() / 127),
        "zero": np.uint8(128),
        "w": weight[:, :, 0, 0].T if dense else weight,
        "w_scale": w_scale,
        "w_zero": np.zeros(problem.layer.out_channels, np.int8),
    }
    operands = ["xq", "x_scale", "zero", "w", "w_scale", "w_zero", "y_scale", "zero"]
    nodes = [
        ("QuantizeLinear", ["x", "x_scale", "zero"], ["xq"], {}),
        ("QLinearMatMul", operands, ["yq"], {}) if dense else ("QLinearConv", operands, ["yq"], _window(problem)),
        ("DequantizeLinear", ["yq", "y_scale", "zero"], ["y"], {}),
    ]
    return _onnx_contestant(problem, threads, nodes, constants, INT8_TOLERANCE)


def _window(problem: Problem) -> dict[str, Any]:
    return {"pads": [problem.layer.padding] * 4, "strides": [problem.layer.stride] * 2}


def _onnx_contestant(
    problem: Problem,
    threads: int,
    nodes: list[_Node],
    constants: Mapping[str, Any],
    tolerance: float,
) -> Contestant:
    """A graph x -> y as a contestant."""
    onnx = load("onnx")
    load("onnxruntime")
    layer = problem.layer
    x = problem.x[:, :, 0, 0] if layer.is_dense else problem.x
    y_shape = [layer.batch, layer.out_channels] + ([] if layer.is_dense else [layer.out_size] * 2)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(kind, inputs, outputs, **attributes) for kind, inputs, outputs, attributes in nodes],
        "layer",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, y_shape)],
        [onnx.numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    run = bound_run(onnxruntime_session(model.SerializeToString(), threads), np.ascontiguousarray(x))

    def result(binding: Any) -> Array:
        y = bound_output(binding)
        return y[:, None, None, :] if layer.is_dense else y.transpose(TO_NHWC)

    return Contestant(run, result, lambda: problem.float_result, tolerance)


ONNXRUNTIME_FLOAT32, ONNXRUNTIME_INT8 = "ONNX Runtime float32", "ONNX Runtime int8"
OPENVINO = "OpenVINO binary, float in/out"
OPENVINO_CHAIN = "OpenVINO binary, in a chain"

OPENVINO_CHAIN_RAW = f"OpenVINO binary, {CHAIN_LENGTH} layers"


def openvino_binary(problem: Problem, threads: int = 1) -> Contestant:
    """OpenVINO's BinaryConvolution, float32 in and out: sign (FakeQuantize), convolution, times alpha.

    A dense layer is a 1x1 convolution there, for it has no binary dense one.
    """
    return _openvino(problem, threads, length=1)


def openvino_chain(problem: Problem, threads: int = 1) -> Contestant:
    """`CHAIN_LENGTH` of them in a row with BatchNorm and sign between, folded into thresholds on the counts.

    Times one layer inside a network together with `openvino_binary`, see `layer.CHAINS`.
    """
    return _openvino(problem, threads, length=CHAIN_LENGTH)


def _openvino(problem: Problem, threads: int, length: int) -> Contestant:
    """Its limits: in the fused kernel a channel count off a multiple of 8 gives wrong sums (2026.4), and so is refused.

    A binary FakeQuantize must give 0 and 1, its comparison is x > threshold, and it is fused into the convolution
    before it only if no two of its constants are equal, since OpenVINO would merge those: hence the two shapes of the
    thresholds and the flipped channels (a BatchNorm with negative gamma).
    """
    ov = load("openvino")
    ops = load("openvino.opset1")
    layer, chain = problem.layer, Chain.of(problem, length)
    if layer.in_channels % 8:
        raise SkippedError(f"OpenVINO is wrong for input channels off a multiple of 8, here {layer.in_channels}")
    shape = (1, layer.in_channels, 1, 1)
    # Before the first layer the sign of x; then count > threshold - 1/2, where no integer is equal.
    thresholds, highs = [np.zeros(shape, np.float32)], [np.ones(shape, np.float32)]
    for threshold, flip in zip(chain.thresholds[:-1], chain.flips[:-1], strict=True):
        thresholds.append((threshold.reshape(shape) - 0.5).astype(np.float32))
        highs.append(1 - flip.reshape(shape).astype(np.float32))
    bits = [np.packbits(w.ravel() >= 0, bitorder="little") for w in chain.weights]  # constants share their memory

    x = ops.parameter(list(problem.x.shape), np.float32)
    y = x
    for threshold, high, packed in zip(thresholds, highs, bits, strict=True):
        y = ops.fake_quantize(y, threshold, threshold[0], 1 - high, high, levels=2)
        filters = ov.op.Constant(ov.Tensor(packed, ov.Shape(problem.weight.shape), ov.Type.u1))
        strides, pads = [layer.stride] * 2, [layer.padding] * 2
        # A pad value of 0 stands for neither bit: padding adds nothing.
        y = ops.binary_convolution(y, filters, strides, pads, pads, [1, 1], mode="xnor-popcount", pad_value=0.0)
    y = ops.multiply(y, problem.alpha.reshape(1, -1, 1, 1))
    try:
        run = openvino_run(ov.Model([y], [x], "layer"), problem.x, threads, bits)
    except RuntimeError:
        window = f"{layer.kernel}x{layer.kernel} with padding {layer.padding}"
        raise SkippedError(f"OpenVINO has no binary convolution of {window}") from None

    def result(request: Any) -> Array:
        return request.get_output_tensor().data.transpose(TO_NHWC)

    return Contestant(run, result, lambda: chain.counts(problem) * problem.alpha, FLOAT32_TOLERANCE)


def openvino_run(model: Any, x: Array, threads: int, weights: object = None) -> Callable[[], Any]:
    """A function that runs an OpenVINO model of one input, in place, and returns the request; float32 throughout.

    weights: arrays that constants of the model share memory with.
    """
    ov = load("openvino")
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",  # it would take bfloat16 where the CPU has it
        "ENABLE_CPU_PINNING": False,  # pinned threads would stay in the way of the other contestants
    }
    request = ov.Core().compile_model(model, "CPU", options).create_infer_request()
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))

    def run(_held: object = (x, weights)) -> Any:
        request.infer()
        return request

    return run


def peers(threads: int = 1) -> dict[str, Builder]:
    """All contestants of this module, by name, with `threads` threads each."""
    builders = {
        ONNXRUNTIME_FLOAT32: onnxruntime_float32,
        ONNXRUNTIME_INT8: onnxruntime_int8,
        OPENVINO: openvino_binary,
        OPENVINO_CHAIN_RAW: openvino_chain,
    }
    return {name: partial(build, threads=threads) for name, build in builders.items()}
