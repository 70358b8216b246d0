"""onnxruntime's providers: the shipped libraries know every option, and the defaults change no numbers."""

from __future__ import annotations

import json
import mmap
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
from onnx_kit import write_onnx
from robossl_client.card import InputContract, TensorSpec

from robossl.encoders.onnx_session import open_session
from robossl.encoders.providers import GpuOptions, ProviderList, ShapeProfile, provider_list, shape_profile
from robossl.errors import InputError

LIBRARIES = Path(onnxruntime.__file__).parent / "capi"
PROFILE = ShapeProfile("x", (1, 8, 8, 3), (2, 8, 8, 3), (4, 8, 8, 3))
EVERY = GpuOptions(memory_gib=2.0, conv_search="exhaustive", tf32=True, cuda_graph=True, precision="bf16")

# A driver without a GPU and a TensorRT that does nothing: enough to load the providers, whose own parsers then run.
STUBS = {
    "cuda.so.1": "int cuTensorMapEncodeTiled(void) { return 100; }",
    "curand.so.10": "".join(
        f"int curand{name}(void) {{ return 1; }} "
        for name in (
            "CreateGenerator",
            "DestroyGenerator",
            "SetStream",
            "SetPseudoRandomGeneratorSeed",
            "GenerateUniform",
        )
    ),
    **dict.fromkeys(
        ("nvinfer.so.10", "nvinfer_plugin.so.10", "nvonnxparser.so.10"),
        """
        static long zero(void) { return 0; }
        #define FOUR (void *)zero, (void *)zero, (void *)zero, (void *)zero
        #define SIXTEEN FOUR, FOUR, FOUR, FOUR
        static void *methods[64] = {SIXTEEN, SIXTEEN, SIXTEEN, SIXTEEN};
        static struct { void **methods; void *more[16]; } object = {methods, {0}};
        void *getPluginRegistry(void) { return &object; }
        void *createInferBuilder_INTERNAL(void) { return &object; }
        void *createInferRefitter_INTERNAL(void) { return &object; }
        void *createInferRuntime_INTERNAL(void) { return &object; }
        void *createNvOnnxParser_INTERNAL(void) { return &object; }
        void *createNvOnnxParserRefitter_INTERNAL(void) { return &object; }
        int initLibNvInferPlugins(void) { return 1; }
        int getInferLibVersion(void) { return 101305; }
        """,
    ),
}
ASK = """
import json, sys, onnxruntime
onnxruntime.preload_dlls()
for name, options in json.loads(sys.argv[2]):
    try:
        onnxruntime.InferenceSession(sys.argv[1], providers=[(name, options)], enable_fallback=0)
    except Exception as error:
        print("ANSWER", " ".join(str(error).split()))
"""


def lists(cache: Path) -> ProviderList:
    """Every provider, with every option that we ever set."""
    return [
        *provider_list("tensorrt", EVERY, profile=PROFILE, engines=cache),
        *provider_list("cuda", replace(EVERY, conv_search="default")),
        *provider_list("tensorrt", GpuOptions(precision="fp16")),
        *provider_list("cuda", GpuOptions()),
    ]


def test_the_shipped_libraries_know_every_option(tmp_path: Path) -> None:
    for name, options in lists(tmp_path):
        library = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "tensorrt"}[name]
        with (LIBRARIES / f"libonnxruntime_providers_{library}.so").open("rb") as file:
            known = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            assert known.find(b"trt_no_such_option\0") == -1
            assert [option for option in options if known.find(f"{option}\0".encode()) == -1] == []


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc, to make an empty driver")
def test_their_parsers_accept_every_option_and_value(tmp_path: Path) -> None:
    for name, code in STUBS.items():
        (tmp_path / "stub.c").write_text(code)
        made = ["gcc", "-w", "-shared", "-fPIC", f"-Wl,-soname,lib{name}", "-o", str(tmp_path / f"lib{name}")]
        subprocess.run([*made, str(tmp_path / "stub.c")], check=True)

    def ask(providers: ProviderList) -> list[str]:
        argv = [sys.executable, "-c", ASK, write_onnx(tmp_path / "m.onnx"), json.dumps(providers)]
        environment = os.environ | {"LD_LIBRARY_PATH": str(tmp_path)}
        done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]

    # CUDA counts the GPUs when it reads device_id, so this option would hide the others.
    asked = [
        (name, {key: each for key, each in options.items() if key != "device_id"}) for name, options in lists(tmp_path)
    ]
    answers = ask(asked)
    assert len(answers) == len(asked)
    assert [answer for answer in answers if "cuda_call.cc" not in answer] == []  # read; the missing GPU comes next
    wrong = [("CUDAExecutionProvider", {"use_tf33": "0"}), ("TensorrtExecutionProvider", {"trt_fp17_enable": "True"})]
    assert ["nknown provider option" in ask([wrong[0]])[0], "Invalid TensorRT EP option" in ask([wrong[1]])[0]] == [
        True
    ] * 2


def test_the_defaults_keep_the_numbers_of_the_graph(tmp_path: Path) -> None:
    (_, tensorrt), (_, cuda) = provider_list("tensorrt", GpuOptions(), engines=tmp_path)
    assert cuda["use_tf32"] == "0" and {tensorrt["trt_fp16_enable"], tensorrt["trt_bf16_enable"]} == {"False"}
    assert not GpuOptions().changes_numbers("tensorrt")
    assert GpuOptions(tf32=True).changes_numbers("cuda") and not GpuOptions(tf32=True).changes_numbers("cpu")
    assert GpuOptions(precision="bf16").changes_numbers("tensorrt")
    assert provider_list("cpu", EVERY) == [("CPUExecutionProvider", {})]


def test_tensorrt_gets_the_shapes_of_the_model() -> None:
    frames = InputContract(TensorSpec("uint8", ("batch", 48, 64, 3)), (32, 32), (0.0,) * 3, (1.0,) * 3, (48, 64))
    profile = shape_profile(frames, best_batch=8, max_batch=4)
    assert profile is not None and profile.options() == {
        "trt_profile_min_shapes": "frames:1x48x64x3",
        "trt_profile_opt_shapes": "frames:4x48x64x3",
        "trt_profile_max_shapes": "frames:4x48x64x3",
    }
    fixed = replace(frames, tensor=TensorSpec("uint8", (2, 48, 64, 3)))
    assert shape_profile(fixed, best_batch=1, max_batch=2) is None
    with pytest.raises(InputError, match="export it with --fixed-hw"):
        shape_profile(replace(frames, fixed_hw=None), best_batch=1, max_batch=4)


def test_options_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = Path(write_onnx(tmp_path / "m.onnx"))
    for options in ({"device_id": -1}, {"memory_gib": 0.0}, {"optimisation_level": 6}, {"best_batch": 0}):
        with pytest.raises(InputError, match=next(iter(options))):
            GpuOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="export it with --fixed-hw H W --fixed-batch 1"):
        open_session(model, provider="cuda", gpu=GpuOptions(cuda_graph=True))
    with pytest.raises(InputError, match="precision fp16 is an option of TensorRT"):
        open_session(model, provider="cuda", gpu=GpuOptions(precision="fp16"))
