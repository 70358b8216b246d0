"""Run one part by its name; `run.py` starts it as a process of its own, which it can stop."""

from __future__ import annotations

import platform
import subprocess
import sys
import xml.etree.ElementTree as ET

from rows import ROOT, Part, add_row, make_store, read_part


def prepare(part: Part) -> None:
    """Say what machine this is, and make the synthetic store."""
    import torch

    from robossl.encoders.gpus import find_gpus, library_versions

    gpus = ", ".join(f"{gpu.name}, compute capability {'.'.join(map(str, gpu.capability))}" for gpu in find_gpus())
    versions = ", ".join(f"{name} {version or 'missing'}" for name, version in library_versions().items())
    note = f"{gpus or 'no GPU'}; torch {torch.__version__}, {versions}, Python {platform.python_version()}"
    add_row(part.out, "machine", "GPUs", float(torch.cuda.device_count()), "", note)
    make_store(part)
    add_row(part.out, "machine", "frames of the synthetic store", float(part.sizes.frames))


def tests(part: Part) -> None:
    """Run the tests that need a GPU."""
    report = part.runs / "tests.xml"
    report.parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run([*argv, "tests/gpu"], cwd=ROOT, capture_output=True, text=True)
    if not report.exists():
        raise RuntimeError(f"pytest ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-300:]}")
    suite = ET.parse(report).getroot()[0]
    count = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors", "skipped")}
    passed = count["tests"] - count["failures"] - count["errors"] - count["skipped"]
    add_row(part.out, "tests", "passed", float(passed), "tests", f"{count['skipped']} skipped")
    for case in suite.iter("testcase"):
        for problem in (*case.findall("failure"), *case.findall("error")):
            add_row(part.out, "tests", f"FAILED {case.get('name')}", None, note=str(problem.get("message"))[:200])


def main() -> None:
    """Run the part that the command line names."""
    name, part = read_part()
    if name in ("prepare", "tests"):
        {"prepare": prepare, "tests": tests}[name](part)
    elif name == "onnx":
        import onnx_parts

        onnx_parts.serve(part)
    elif name in ("resume", "throughput", "knn"):
        import training

        getattr(training, name)(part)
    else:
        sys.exit(f"unknown part {name!r}")


if __name__ == "__main__":
    main()
