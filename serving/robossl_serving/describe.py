"""Descriptions of the server and its models for clients: metadata, configuration, statistics and index."""

from __future__ import annotations

from google.protobuf import text_format
from robossl_client._proto import inference_pb2 as pb
from robossl_client.card import TensorSpec
from robossl_client.wire import tensor_type

from robossl.common.version import __version__
from robossl.encoders.run_session import input_specs
from robossl.exporting.triton_layout import triton_config
from robossl_serving.model import Model
from robossl_serving.refused import RefusedError
from robossl_serving.repository import Repository

_PLATFORM = "onnxruntime_onnx"
_EXTENSIONS = ("model_repository", "model_configuration", "statistics", "binary_tensor_data")


class Descriptions:
    """Describes the models of a repository to clients, which may ask for any name and version."""

    def __init__(self, repository: Repository, *, has_shared_memory: bool) -> None:
        self._repository = repository
        self._extensions = (*_EXTENSIONS, *(("system_shared_memory",) if has_shared_memory else ()))

    def server(self) -> pb.ServerMetadataResponse:
        """Return the server's name, version and extensions."""
        return pb.ServerMetadataResponse(name="robossl", version=__version__, extensions=self._extensions)

    def is_ready(self, name: str, version: str) -> bool:
        """Return whether a model is loaded."""
        try:
            self._repository.find(name, version, None)
        except RefusedError:
            return False
        return True

    def metadata(self, name: str, version: str) -> pb.ModelMetadataResponse:
        """Return the tensors and the loaded versions of a model, and its card as a property."""
        model = self._repository.find(name, version, None)
        card = model.card
        return pb.ModelMetadataResponse(
            name=card.name,
            versions=[str(each) for each in self._repository.entry(name).in_order()],
            platform=_PLATFORM,
            inputs=[_tensor(each, spec) for each, spec in input_specs(card).items()],
            outputs=[_tensor(output, spec) for output, spec in card.outputs.items()],
            properties={"card": card.to_json(), "artefact": model.artefact},
        )

    def config(self, name: str, version: str) -> pb.ModelConfigResponse:
        """Return the model's configuration in Triton's form."""
        model = self._repository.find(name, version, None)
        config = pb.ModelConfig()
        text_format.Parse(triton_config(model.card, max_batch=model.max_batch), config)
        config.version_policy.CopyFrom(self._repository.entry(name).policy)
        return pb.ModelConfigResponse(config=config)

    def statistics(self, name: str, version: str) -> pb.ModelStatisticsResponse:
        """Return counts and times of one model, or of all models if the name is empty."""
        models = [self._repository.find(name, version, None)] if version else self._loaded(name)
        return pb.ModelStatisticsResponse(model_stats=[model.statistics.to_message() for model in models])

    def index(self, *, only_ready: bool) -> pb.RepositoryIndexResponse:
        """Return the state of all versions that are on disk or loaded; with `only_ready`, only of ready versions."""
        rows = [row for row in self._repository.index() if row.ready or not only_ready]
        return pb.RepositoryIndexResponse(
            models=[
                pb.RepositoryIndexResponse.ModelIndex(
                    name=row.name,
                    version=str(row.version),
                    state="READY" if row.ready else "UNAVAILABLE",
                    reason=row.reason,
                )
                for row in rows
            ]
        )

    def _loaded(self, name: str) -> list[Model]:
        if name:
            self._repository.find(name, "", None)
        return [model for model in self._repository.models() if name in ("", model.card.name)]


def _tensor(name: str, spec: TensorSpec) -> pb.ModelMetadataResponse.TensorMetadata:
    shape = [size if isinstance(size, int) else -1 for size in spec.shape]
    return pb.ModelMetadataResponse.TensorMetadata(name=name, datatype=tensor_type(spec.dtype), shape=shape)
