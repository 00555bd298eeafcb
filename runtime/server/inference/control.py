"""The protocol's other methods: what is ready, what models look like, load and unload, shared memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trocar.inference_v2 import open_inference_pb2 as pb
from trocar.runtime.errors import InvalidInput, ModelNotFound, Unavailable, Unimplemented
from trocar.runtime.repository.manifest import MODEL_NAME
from trocar.runtime.server.inference.datatypes import Wire
from trocar.runtime.server.inference.ipc import CudaRegion
from trocar.runtime.server.inference.models import Duration, Loaded, Models
from trocar.runtime.server.inference.posix import PosixRegion
from trocar.runtime.server.inference.regions import Regions
from trocar.runtime.session.base import TensorSpec
from trocar.runtime.session.cuda import Gpu, find_gpu
from trocar.runtime.versions import installed

EXTENSIONS = ("model_repository", "model_configuration", "statistics", "system_shared_memory")


def methods(models: Models, regions: Regions, forget: Callable[[], None]) -> dict[str, Callable[[Any], Any]]:
    """Return the methods by name, from request to reply.

    Parameters
    ----------
    models, regions : what they show and change.
    forget : called after a model or a region went.
    """

    def unload(request: Any) -> Any:
        _refuse_parameters(request, "unload_dependents")
        _require_repository(request)
        models.unload(request.model_name)
        forget()
        return pb.RepositoryModelUnloadResponse()

    def load(request: Any) -> Any:
        _refuse_parameters(request)
        _require_repository(request)
        models.load(request.model_name)
        forget()
        return pb.RepositoryModelLoadResponse()

    def register(request: Any) -> Any:
        regions.register(request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    def register_cuda(request: Any) -> Any:
        regions.register_cuda(request.name, request.raw_handle, request.device_id, request.byte_size)
        return pb.CudaSharedMemoryRegisterResponse()

    def unregister(request: Any) -> Any:
        regions.unregister(PosixRegion, request.name)
        forget()
        return pb.SystemSharedMemoryUnregisterResponse()

    def unregister_cuda(request: Any) -> Any:
        regions.unregister(CudaRegion, request.name)
        forget()
        return pb.CudaSharedMemoryUnregisterResponse()

    return {
        "ServerLive": lambda _: pb.ServerLiveResponse(live=True),
        "ServerReady": lambda _: pb.ServerReadyResponse(ready=models.ready()),
        "ServerMetadata": lambda _: pb.ServerMetadataResponse(
            name="trocar", version=installed("trocar"), extensions=_extensions()
        ),
        "ModelReady": lambda request: pb.ModelReadyResponse(ready=_is_ready(models, request)),
        "ModelMetadata": lambda request: _metadata(models.get(request.name, request.version)),
        "ModelConfig": lambda request: _config(models.get(request.name, request.version)),
        "ModelStatistics": lambda request: _statistics(models, request),
        "RepositoryIndex": lambda request: _index(models, request),
        "RepositoryModelLoad": load,
        "RepositoryModelUnload": unload,
        "SystemSharedMemoryStatus": lambda request: _regions(regions, request),
        "SystemSharedMemoryRegister": register,
        "SystemSharedMemoryUnregister": unregister,
        "CudaSharedMemoryStatus": lambda request: _cuda_regions(regions, request),
        "CudaSharedMemoryRegister": register_cuda,
        "CudaSharedMemoryUnregister": unregister_cuda,
    }


def _extensions() -> tuple[str, ...]:
    return (*EXTENSIONS, "cuda_shared_memory") if isinstance(find_gpu(), Gpu) else EXTENSIONS


def _is_ready(models: Models, request: Any) -> bool:
    try:
        models.get(request.name, request.version)
    except (ModelNotFound, Unavailable):
        return False
    return True


def _platform(loaded: Loaded) -> tuple[str, str]:
    """Return platform and backend by the names that Triton gives them."""
    if loaded.session.provider.startswith("TensorRT"):
        return "tensorrt_plan", "tensorrt"
    return "onnxruntime_onnx", "onnxruntime"


def _metadata(loaded: Loaded) -> Any:
    reply = pb.ModelMetadataResponse(
        name=loaded.name, versions=[loaded.version], platform=_platform(loaded)[0]
    )
    for specs, tensors in ((loaded.session.inputs, reply.inputs), (loaded.session.outputs, reply.outputs)):
        for spec in specs:
            tensor = Wire.of(spec)
            tensors.add(name=spec.name, datatype=tensor.datatype, shape=tensor.shape)
    return reply


def _config(loaded: Loaded) -> Any:
    platform, backend = _platform(loaded)
    config = pb.ModelConfig(
        name=loaded.name, platform=platform, backend=backend, default_model_filename=MODEL_NAME
    )
    for spec in loaded.session.inputs:
        config.input.add(name=spec.name, data_type=_data_type(spec), dims=Wire.of(spec).shape)
    for spec in loaded.session.outputs:
        config.output.add(name=spec.name, data_type=_data_type(spec), dims=Wire.of(spec).shape)
    return pb.ModelConfigResponse(config=config)


def _data_type(spec: TensorSpec) -> Any:
    datatype = Wire.of(spec).datatype
    return pb.DataType.Value("TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}")


def _statistics(models: Models, request: Any) -> Any:
    shown = [models.get(request.name, request.version)] if request.name else models.all()
    reply = pb.ModelStatisticsResponse()
    for loaded in shown:
        statistics = loaded.statistics
        with statistics.lock:
            reply.model_stats.add(
                name=loaded.name,
                version=loaded.version,
                last_inference=statistics.last_ms,
                inference_count=statistics.inferences,
                execution_count=statistics.inferences,
                inference_stats=pb.InferStatistics(
                    success=_duration(statistics.success),
                    fail=_duration(statistics.fail),
                    queue=_duration(statistics.queue),
                    compute_input=_duration(statistics.inputs),
                    compute_infer=_duration(statistics.run),
                    compute_output=_duration(statistics.outputs),
                ),
            )
    return reply


def _duration(duration: Duration) -> Any:
    return pb.StatisticDuration(count=duration.count, ns=duration.ns)


def _index(models: Models, request: Any) -> Any:
    _require_repository(request)
    reply = pb.RepositoryIndexResponse()
    for name, newest, state, reason in models.index():
        if state == "READY" or not request.ready:
            reply.models.add(name=name, version=newest, state=state, reason=reason)
    return reply


def _regions(regions: Regions, request: Any) -> Any:
    reply = pb.SystemSharedMemoryStatusResponse()
    for region in regions.status(PosixRegion, request.name):
        shown = reply.regions[region.name]
        shown.name, shown.key = region.name, region.key
        shown.offset, shown.byte_size = region.offset, region.size_bytes
    return reply


def _cuda_regions(regions: Regions, request: Any) -> Any:
    reply = pb.CudaSharedMemoryStatusResponse()
    for region in regions.status(CudaRegion, request.name):
        shown = reply.regions[region.name]
        shown.name, shown.device_id, shown.byte_size = region.name, region.device_id, region.size_bytes
    return reply


def _require_repository(request: Any) -> None:
    if request.repository_name:
        raise InvalidInput(
            f"expected no repository_name, there is one repository, got {request.repository_name!r:.80}"
        )


def _refuse_parameters(request: Any, *known: str) -> None:
    for key in request.parameters:
        if key not in known:
            raise Unimplemented(
                f"expected no parameter {key!r:.80}: models come from the server's repository as they are"
            )
