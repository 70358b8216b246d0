"""What a server would ask of onnxruntime: providers, options and engines of each model, found out without a GPU."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from robossl.encoders.gpus import GpuInfo, find_gpus, library_versions
from robossl.encoders.onnx_session import engines_of, read_card, session_providers
from robossl.encoders.providers import GpuOptions, Provider, ProviderList
from robossl_serving.folder import nothing_found_error, scan
from robossl_serving.model import max_batch_of
from robossl_serving.policy import choose, read_policy
from robossl_serving.provider import ProviderChoice


@dataclass(frozen=True, slots=True)
class ModelPlan:
    """How one version of a model would be opened."""

    model: str
    version: int
    max_batch: int
    providers: ProviderList
    engines: str | None  # folder of TensorRT's engines
    is_built: bool  # whether the engines are there


def describe_plan(models: Path, choice: ProviderChoice, gpu: GpuOptions, *, as_json: bool) -> str:
    """Return the providers and options of the models that a server would load, as text or JSON.

    Raises:
        InputError: there is no model, or the options do not fit a model.
    """
    found = find_gpus()
    provider: Provider = ("cuda" if found else "cpu") if choice == "auto" else choice
    plans = list(_plans(models, provider, gpu))
    if not plans:
        raise nothing_found_error(models)
    versions = library_versions()
    if as_json:
        facts = {"provider": provider, "gpus": [asdict(each) for each in found], "versions": versions}
        return json.dumps({**facts, "models": [asdict(plan) for plan in plans]}, indent=2)
    found_versions = {name: version or "missing" for name, version in versions.items()}
    return "\n".join(_lines(provider, found, found_versions, plans))


def _plans(models: Path, provider: Provider, gpu: GpuOptions) -> Iterator[ModelPlan]:
    for name, on_disk in scan(models).items():
        wanted = choose(read_policy(models / name), on_disk)
        for version in wanted.versions[: wanted.num]:
            card = read_card(models / name / str(version) / "card.json")
            most = max_batch_of(models / name / "config.pbtxt", card)
            place = engines_of(gpu, card, max_batch=most) if provider == "tensorrt" else None
            folder = place.folder if place else None
            providers = session_providers(provider, gpu, card, max_batch=most, engines=folder)
            yield ModelPlan(
                name, version, most, providers, str(folder) if folder else None, place is not None and place.is_built
            )


def _lines(
    provider: Provider, gpus: tuple[GpuInfo, ...], versions: dict[str, str], plans: list[ModelPlan]
) -> Iterator[str]:
    names = [f"{gpu.name} (compute capability {gpu.capability[0]}.{gpu.capability[1]})" for gpu in gpus]
    yield f"provider  {provider}"
    yield f"GPU       {', '.join(names) or 'none'}"
    yield f"versions  {', '.join(f'{name} {version}' for name, version in versions.items())}"
    for plan in plans:
        yield f"\n{plan.model} version {plan.version}, batches of up to {plan.max_batch}"
        for name, options in plan.providers:
            yield f"  {name}"
            yield from (f"    {key:30} {value}" for key, value in options.items())
        if plan.engines:
            yield f"  engines {'are in' if plan.is_built else 'will be built in'} {plan.engines}"
