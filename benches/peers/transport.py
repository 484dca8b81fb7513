#!/usr/bin/env python3
"""What a request costs the server besides the face: Vultus' null model against grpcio's asyncio server, in turn.

    benches/peers/transport.py [--rounds 5]

`vultus-load --null-model` loads both, in a closed loop, with the same 20 KB requests. Each server has the first half
of the cores to itself, the generator the others: on two cores one each, as asyncio uses one. What counts is answers for each
second of processor time that the server's process used.
Prints a line per round, then the medians and their ratio as one JSON object. Needs `make build` and scripts/setup.sh.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOAD = ROOT / "target/release/vultus-load"
CALLERS = 128  # as many as the generator can feed from one core: with fewer it is what both wait for
CORES = sorted(os.sched_getaffinity(0))
OF_SERVER, OF_GENERATOR = CORES[: max(len(CORES) // 2, 1)], CORES[len(CORES) // 2 :]
START_WITHIN_S = 30


def peak(cores: list[int], *flags: str) -> dict:
    """One closed loop's figures; the generator runs on `cores`."""
    command = [LOAD, "--json", "--null-model", "--rate", "10%", "--seconds", "0.5", *flags]
    done = subprocess.run(
        [*command, "--callers", str(CALLERS)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if not done.stdout:
        raise RuntimeError(f"the generator failed: {' '.join(map(str, command))}")
    found = json.loads(done.stdout)["peak"]
    if found["failed"]:
        raise RuntimeError(f"{found['failed']} requests failed")
    return found


@contextmanager
def peer():
    process = subprocess.Popen(
        [sys.executable, ROOT / "benches/peers/grpcio_null.py"],
        text=True,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, OF_SERVER),
    )
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.wait(START_WITHIN_S)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    per_core_s = {"vultus": [], "grpcio": []}
    for _ in range(rounds):
        with peer() as started:
            figures = {
                "vultus": peak(CORES, "--apart"),
                "grpcio": peak(OF_GENERATOR, "--target", started["listening"], "--pid", str(started["pid"])),
            }
        for name, found in figures.items():
            per_core_s[name].append(found["answers_per_core_s"])
            print(
                f"{name:7} {found['answers_per_s']:9.0f} answers/s, {found['answers_per_core_s']:9.0f} per core-second, "
                f"the server used {found['server_cores']:.2f} cores, the generator {found['generator_cores']:.2f}",
                flush=True,
            )
    medians = {name: statistics.median(values) for name, values in per_core_s.items()}
    print(json.dumps({"answers_per_core_s": medians, "ratio": round(medians["vultus"] / medians["grpcio"], 2)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
