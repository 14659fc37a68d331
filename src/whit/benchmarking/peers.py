"""What a user would run instead of a packed network: torch and ONNX Runtime, float32 and int8.

Every peer computes the float twin of the packed network (see `float_twin`), quantised by its own
tools where it is an int8 one. A peer that cannot be built is named with the reason.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from functools import partial
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from whit.benchmarking.float_twin import FloatTwin
from whit.errors import WhitError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

Array = NDArray[Any]
Call = Callable[[], object]

FLOAT, INTEGER = "float32", "int8"
TORCH = "torch fp32"
CHANNELS_LAST = "torch fp32 channels_last"
TORCH_ENGINES = ("x86", "onednn")
ORT = "ONNX Runtime fp32"
ORT_DYNAMIC = "ONNX Runtime int8 dynamic"
ORT_STATIC = "ONNX Runtime int8 QDQ"
PEERS = (
    TORCH,
    CHANNELS_LAST,
    *(f"torch int8 dynamic {engine}" for engine in TORCH_ENGINES),
    ORT,
    ORT_DYNAMIC,
    ORT_STATIC,
)
# Short names for `whit bench --peers`.
GROUPS = {
    "torch": (TORCH, CHANNELS_LAST),
    "torch-int8": tuple(name for name in PEERS if name.startswith("torch int8")),
    "onnx": (ORT,),
    "onnx-int8": (ORT_DYNAMIC, ORT_STATIC),
}


@dataclass(frozen=True)
class Peer:
    """Another way to run a network.

    Attributes:
        name: as in `PEERS`.
        kind: FLOAT or INTEGER.
        stored_bytes: of its file, or of its weights where it has no file.
        prepare: (inputs, threads) -> a call that predicts them; only calls are timed.
    """

    name: str
    kind: str
    stored_bytes: int
    prepare: Callable[[Array, int], Call]


@dataclass
class Peers:
    """The peers of one network.

    Attributes:
        built: in the order of `PEERS`.
        missing: why the others could not be built, by name.
    """

    built: list[Peer] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def attempt(self, name: str, build: Callable[[], Peer]) -> None:
        """Build a peer; what prevents it is its reason, whatever the other library raises."""
        try:
            self.built.append(build())
        except ImportError as error:
            self.missing[name] = f"{error.name or error} is not installed"
        except WhitError as error:
            self.missing[name] = " ".join(str(error).split())
        except Exception as error:  # other people's libraries raise anything
            lines = str(error).strip().splitlines()[:1]
            self.missing[name] = f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def build_peers(twin: FloatTwin, samples: Array, folder: Path, names: Sequence[str]) -> Peers:
    """Build the peers of a network.

    Args:
        twin: its float twin.
        samples: inputs of the twin, for checks and for the calibration of static quantisation.
        folder: for ONNX files; it must stay while the peers are used.
        names: the wanted ones of `PEERS`.
    """
    peers = Peers()
    torch_parts = _TorchParts(twin, samples)
    onnx_parts = _OnnxParts(twin, samples, folder)
    makers: dict[str, Callable[[], Peer]] = {
        TORCH: torch_parts.plain,
        CHANNELS_LAST: torch_parts.channels_last,
        ORT: onnx_parts.plain,
        ORT_DYNAMIC: onnx_parts.dynamic,
        ORT_STATIC: onnx_parts.static,
    }
    for engine in TORCH_ENGINES:
        makers[f"torch int8 dynamic {engine}"] = partial(torch_parts.dynamic, engine)
    for name in PEERS:
        if name in names:
            peers.attempt(name, makers[name])
    return peers


def torch_call(module: nn.Module, inputs: Array, channels_last: bool = False) -> Call:
    """Return a call of a module without gradients; set the threads before it is used."""
    import torch

    from whit.benchmarking.torch_twin import as_tensor

    batch = as_tensor(inputs)
    if channels_last:
        batch = batch.contiguous(memory_format=torch.channels_last)

    def call() -> object:
        with torch.inference_mode():
            return module(batch)

    return call


def onnx_call(path: Path, inputs: Array, threads: int) -> Call:
    """Return a call of a session of ONNX Runtime; everything but the threads is its default.

    The batch size is made known to it, since all calls have the same.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_free_dimension_override_by_name("batch", len(inputs))
    session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: inputs}

    def call() -> object:
        return session.run(None, feed)

    return call


class _TorchParts:
    """The twin in torch, built once."""

    def __init__(self, twin: FloatTwin, samples: Array) -> None:
        self.twin, self.samples = twin, samples
        self._module: nn.Module | None = None

    def module(self) -> nn.Module:
        from whit.benchmarking.torch_twin import check_torch_twin, torch_twin

        if self._module is None:
            module = torch_twin(self.twin.program)
            check_torch_twin(module, self.twin.program, self.samples[:4])
            self._module = module
        return self._module

    def plain(self) -> Peer:
        module = self.module()
        return Peer(TORCH, FLOAT, self.twin.weight_bytes, lambda x, threads: torch_call(module, x))

    def channels_last(self) -> Peer:
        import torch
        from torch import nn

        module = copy.deepcopy(self.module())
        convolutions = any(isinstance(part, nn.Conv2d) for part in module.modules())
        if not convolutions or self.samples.ndim != 4:
            raise WhitError("it has no convolution of images")
        module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Peer(
            CHANNELS_LAST,
            FLOAT,
            self.twin.weight_bytes,
            lambda x, threads: torch_call(module, x, channels_last=True),
        )

    def dynamic(self, engine: str) -> Peer:
        import torch
        from torch import nn

        name = f"torch int8 dynamic {engine}"
        if engine not in torch.backends.quantized.supported_engines:
            raise WhitError(f"this build of torch has no engine '{engine}'")
        module = self.module()
        linear = [part for part in module.modules() if isinstance(part, nn.Linear)]
        if not linear:
            raise WhitError("it has no linear layer, and torch rounds no other dynamically")
        with _quiet(), _engine(engine):
            from torch.ao.quantization import quantize_dynamic

            rounded: nn.Module = quantize_dynamic(  # type: ignore[no-untyped-call]
                copy.deepcopy(module), {nn.Linear}, dtype=torch.qint8
            )
        saved = 3 * sum(part.weight.numel() for part in linear)

        def prepare(x: Array, threads: int) -> Call:
            inner = torch_call(rounded, x)

            def call() -> object:
                # The engine is global in torch; setting it costs nothing beside a call.
                torch.backends.quantized.engine = engine
                return inner()

            call()
            return call

        return Peer(name, INTEGER, self.twin.weight_bytes - saved, prepare)


class _OnnxParts:
    """The twin as ONNX files, each written once."""

    def __init__(self, twin: FloatTwin, samples: Array, folder: Path) -> None:
        self.twin, self.samples, self.folder = twin, samples, folder

    def file(self) -> Path:
        from whit.export.onnx_export import export_onnx

        path = self.folder / "twin.onnx"
        if not path.exists():
            export_onnx(self.twin.program, path, self.samples[:4], quantized="exact")
        return path

    def plain(self) -> Peer:
        return _onnx_peer(ORT, FLOAT, self.file())

    def dynamic(self) -> Peer:
        target = self.folder / "dynamic.onnx"
        with _quiet():
            from onnxruntime.quantization import QuantType, quantize_dynamic

            quantize_dynamic(self.prepared(), target, weight_type=QuantType.QInt8)
        return _checked(_onnx_peer(ORT_DYNAMIC, INTEGER, target), self.samples)

    def static(self) -> Peer:
        target = self.folder / "static.onnx"
        with _quiet():
            from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

            quantize_static(
                self.prepared(),
                target,
                _Samples(self.samples),  # type: ignore[arg-type, unused-ignore]
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        return _checked(_onnx_peer(ORT_STATIC, INTEGER, target), self.samples)

    def prepared(self) -> Path:
        """Return the file as ONNX Runtime's quantiser wants it: shapes known, nodes merged."""
        from onnxruntime.quantization.shape_inference import quant_pre_process

        target = self.folder / "prepared.onnx"
        if not target.exists():
            quant_pre_process(str(self.file()), str(target), skip_symbolic_shape=True)
        return target


class _Samples:
    """Calibration samples, one a call, as the quantiser of ONNX Runtime reads them."""

    def __init__(self, samples: Array) -> None:
        self.left = list(samples)

    def get_next(self) -> dict[str, Array] | None:
        from whit.export.onnx_build import INPUT

        return {INPUT: self.left.pop(0)[None]} if self.left else None

    def __iter__(self) -> Iterator[dict[str, Array]]:
        while (sample := self.get_next()) is not None:
            yield sample


def _onnx_peer(name: str, kind: str, path: Path) -> Peer:
    size = path.stat().st_size
    return Peer(name, kind, size, lambda x, threads: onnx_call(path, x, threads))


def _checked(peer: Peer, samples: Array) -> Peer:
    """Run a peer once, so that what ONNX Runtime refuses is found here."""
    peer.prepare(np.ascontiguousarray(samples[:1]), 1)()
    return peer


@contextmanager
def _engine(name: str) -> Iterator[None]:
    import torch

    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep other libraries' advice from the terminal: what counts is measured."""
    import logging

    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
