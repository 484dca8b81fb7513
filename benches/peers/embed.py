#!/usr/bin/env python3
"""Vultus beside ONNX Runtime and OpenVINO on ArcFace-shaped networks: do they agree, and how many faces a second?

    benches/peers/embed.py [NETWORK.onnx ...] [--networks iresnet50,iresnet100,mobilefacenet] [--batches 1,8,32]
                           [--rounds 3] [--seconds 5] [--threads N] [--parity-only] [--as-trained]

Networks that are named and not given as files are made with random weights and the statistics that training leaves; files get these
with --as-trained. A file's inputs may be of any size, and get the pixels that ArcFace networks take. int8 takes
activation ranges from other images than those compared, and so does OpenVINO's, which NNCF quantises after training.
Prints JSON lines: for each network the cosines to ONNX Runtime's f32 (Vultus through its CPU executor and its
reference), then for each batch the medians of rounds in which the engines take turns. Beside each of Vultus stands
its share of the machine's ceiling, what the same threads do in that precision on registers alone, measured after each
run. Operations are those of the network as it is written: Winograd's algorithm does with fewer, so that a share may
be above 1. Needs target/release/vultus; a virtual environment with onnx, onnxruntime, openvino and nncf is made in
target/peers where this Python has none.
"""

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VULTUS = ROOT / "target/release/vultus"
HOME = ROOT / "target/peers"
# Images that set the ranges of int8.
SEEN = 20
NEEDED = {"numpy": "2.4.6", "onnx": "1.23.2", "onnxruntime": "1.32.0", "openvino": "2026.4.1", "nncf": "3.4.0"}


def with_peers():
    """Starts again in an environment that has the peers, made once."""
    try:
        for module in NEEDED:
            __import__(module)
    except ImportError:
        python = HOME / "bin/python"
        if Path(sys.prefix) == HOME:
            raise
        if not (HOME / "bin/pip").exists():  # none, or one that was interrupted
            venv.create(HOME, with_pip=True, clear=True)
        pinned = [f"{name}=={version}" for name, version in NEEDED.items()]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *pinned], check=True)
        os.execv(python, [python, __file__, *sys.argv[1:]])


def say(**line):
    print(json.dumps(line), flush=True)


def one_minus_cosine(a, b) -> float:
    import numpy as np

    a, b = a.astype(np.float64), b.astype(np.float64)
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float(f"{1 - cosines.min():.2e}")


def vultus(*arguments) -> dict:
    ran = subprocess.run([VULTUS, *map(str, arguments), "--json"], capture_output=True, text=True)
    if ran.returncode != 0:
        raise RuntimeError(ran.stderr.strip().splitlines()[-1])
    return json.loads(ran.stdout)


class Peers:
    """Sessions of one network, made once."""

    def __init__(self, path: Path, threads: int):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.path, self.threads = path, threads
        self.ort = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        feed = self.ort.get_inputs()[0]
        self.name, self.side = feed.name, feed.shape[-1] if isinstance(feed.shape[-1], int) else 112

    def onnxruntime(self, x):
        return self.ort.run(None, {self.name: x})[0]

    @functools.cached_property
    def quantised(self):
        """OpenVINO's int8: quantised after training by NNCF, on the images that set Vultus's ranges."""
        import nncf
        import openvino as ov

        _, fed = images(SEEN, self.side, seed=2)
        return nncf.quantize(ov.Core().read_model(str(self.path)), nncf.Dataset([x[None] for x in fed]), subset_size=SEEN)

    def openvino(self, precision: str, batch: int):
        import openvino as ov

        hints = {
            "PERFORMANCE_HINT": "THROUGHPUT" if batch > 1 else "LATENCY",
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(self.threads),
            # What is not quantised stays f32, so that int8 is int8 on every processor.
            "INFERENCE_PRECISION_HINT": "f32" if precision == "int8" else precision,
        }
        model = self.quantised if precision == "int8" else str(self.path)
        request = ov.Core().compile_model(model, "CPU", hints).create_infer_request()
        return lambda x: request.infer({0: x})[0]


def images(n: int, side: int, seed: int = 1):
    """Raw pixels, and what a network is fed for them."""
    import numpy as np

    pixels = np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), np.uint8)
    fed = (pixels.astype(np.float32) - 127.5) * np.float32(1 / 127.5)
    return pixels, np.ascontiguousarray(fed.transpose(0, 3, 1, 2))


def parity(network: str, peers: Peers, folder: Path):
    import numpy as np

    n = 5
    pixels, fed = images(n, peers.side)
    expected = peers.onnxruntime(fed)
    pixels.tofile(folder / "images")
    images(SEEN, peers.side, seed=2)[0].tofile(folder / "seen")
    run = ("model", "run", "--model", peers.path, "--images", folder / "images", "--outputs", folder / "outputs")
    for engine, extra in (
        ("vultus cpu f32", ("--batch", 4)),
        ("vultus cpu bf16", ("--batch", 4, "--precision", "bf16")),
        ("vultus cpu int8", ("--batch", 4, "--precision", "int8", "--ranges-from", folder / "seen")),
        ("vultus reference", ("--reference",)),
    ):
        try:
            vultus(*run, *extra)
            got = np.fromfile(folder / "outputs", np.float32).reshape(expected.shape)
            say(network=network, engine=engine, images=n, one_minus_cosine_to_onnxruntime_f32=one_minus_cosine(got, expected))
        except RuntimeError as refused:
            say(network=network, engine=engine, refused=str(refused))
    for precision in ("bf16", "int8"):
        got = peers.openvino(precision, n)(fed)
        cosine = one_minus_cosine(got, expected)
        say(network=network, engine=f"openvino {precision}", images=n, one_minus_cosine_to_onnxruntime_f32=cosine)


def timed(run, batch: int, seconds: float) -> float:
    """Faces a second, after one run that warms up."""
    run()
    start, done = time.perf_counter(), 0
    while done == 0 or time.perf_counter() - start < seconds:
        run()
        done += batch
    return done / (time.perf_counter() - start)


def speed(network: str, peers: Peers, batch: int, rounds: int, seconds: float):
    _, x = images(batch, peers.side)
    bench = ("bench", "embed", "--model", peers.path, "--batch", batch, "--seconds", seconds, "--threads", peers.threads)
    engines = {"onnxruntime f32": lambda: {"faces_per_s": timed(lambda: peers.onnxruntime(x), batch, seconds)}}
    for precision in ("f32", "bf16", "int8"):
        run = peers.openvino(precision, batch)
        engines[f"openvino {precision}"] = lambda run=run: {"faces_per_s": timed(lambda: run(x), batch, seconds)}
    for precision in ("f32", "bf16", "int8"):
        engines[f"vultus {precision}"] = lambda p=precision: vultus(*bench, "--precision", p)
    ran = {engine: [] for engine in engines}
    for _ in range(rounds):
        for engine, run in engines.items():
            try:
                ran[engine].append(run())
            except RuntimeError:
                pass  # a precision that is not built: parity said so

    def median(engine: str, figure: str) -> float | None:
        values = [run[figure] for run in ran[engine] if figure in run]
        return float(f"{statistics.median(values):.4g}") if values else None

    for engine in (engine for engine, runs in ran.items() if runs):
        rate = median(engine, "faces_per_s")
        ratio = round(rate / median("onnxruntime f32", "faces_per_s"), 2)
        figures = {f: median(engine, f) for f in ("share_of_ceiling", "ceiling_gflop_per_s", "gflop_per_face", "peak_bytes")}
        figures = {figure: value for figure, value in figures.items() if value is not None}
        say(network=network, batch=batch, engine=engine, faces_per_s=rate, to_onnxruntime_f32=ratio, **figures)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("files", nargs="*", type=Path)
    p.add_argument("--networks", default="iresnet50,iresnet100,mobilefacenet")
    p.add_argument("--batches", default="1,8,32")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--seconds", type=float, default=5)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--parity-only", action="store_true")
    p.add_argument("--as-trained", action="store_true", help="files get statistics as training leaves them")
    a = p.parse_args()
    with_peers()
    import onnx
    from networks import NETWORKS, as_trained

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        files = list(a.files)
        for name in [] if files else a.networks.split(","):
            files.append(folder / f"{name}.onnx")
            onnx.save(as_trained(NETWORKS[name]()), files[-1])
        if a.as_trained and a.files:
            for at, file in enumerate(files):
                files[at] = folder / file.name
                onnx.save(as_trained(onnx.load(file)), files[at])
        for file in files:
            peers = Peers(file, a.threads)
            parity(file.stem, peers, folder)
            if not a.parity_only:
                for batch in map(int, a.batches.split(",")):
                    speed(file.stem, peers, batch, a.rounds, a.seconds)


if __name__ == "__main__":
    main()
