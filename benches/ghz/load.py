#!/usr/bin/env python3
"""Starts a server with its own data, prepares requests, and lets ghz send them, in an open loop. Called by run.sh.

A scenario is a folder here: each of its files is one run of ghz, and all of them go at once. Requests are written to
a temporary folder as ghz's data: an array that it sends in turn. A receipt works once, and a subject holds few
references, so identifications and enrolments get as many requests as they send.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "clients/python"), str(ROOT / "tests/python")]

import faces
from google.protobuf import json_format
from server import Server
from vultus_client import Vultus, face, v1

VULTUS = ROOT / "target/release/vultus"
GALLERY = "subscribers"
EARNERS = 8  # that earn receipts side by side

SCENARIOS = ["constant", "step", "spike", "mixed"]
STARTS_AFTER_S = {"spike/burst": 8}  # the others begin with their scenario

# Thresholds as the demonstration has them, for the gallery grows beyond what the default model's card measured.
POLICY = """
[clients.counters]
rights = ["verify", "identify"]
purposes = ["sim_activation"]
galleries = ["subscribers"]

[clients.campaign]
rights = ["verify"]
purposes = ["sim_activation"]
galleries = ["subscribers"]

[clients.back-office]
rights = ["enrol"]
purposes = ["sim_activation"]
galleries = ["subscribers"]

[policy]
max_fmr = 0.001
max_fpir = 0.01
extrapolated_thresholds = true
"""


class Requests:
    """What each call sends; made from real faces."""

    def __init__(self, counters: Vultus, people: list[faces.Person]):
        self._counters, self._people = counters, people
        self._context = lambda: counters.context(v1.PURPOSE_SIM_ACTIVATION)

    def of(self, config: dict) -> list:
        call = config["call"].rsplit(".", 1)[1]
        number = config["rps"] * int(config["duration"].removesuffix("s")) if "rps" in config else 0
        return {"Verify": self._verify, "Identify": self._identify, "Enrol": self._enrol}[call](number)

    def _verify(self, _: int) -> list:
        """Everyone's probe against everyone's reference: mated and non-mated."""
        claimed = [v1.ClaimedSubject(gallery=GALLERY, subject_id=f"subject-{n}") for n in range(len(self._people))]
        probes = [face(person.probe) for person in self._people]
        return [
            v1.VerifyRequest(context=self._context(), probe=probe, claimed_subject=subject)
            for probe in probes
            for subject in claimed
        ]

    def _identify(self, number: int) -> list:
        """Each with a receipt of its own."""

        def earn(turn: int):
            subject = turn % len(self._people)
            receipt = self._counters.verify(GALLERY, f"subject-{subject}", self._people[subject].probe).receipt
            return v1.IdentifyRequest(context=self._context(), gallery=GALLERY, receipt=receipt)

        with ThreadPoolExecutor(EARNERS) as pool:
            return list(pool.map(earn, range(number)))

    def _enrol(self, number: int) -> list:
        """Each a subject of its own."""
        return [
            v1.EnrolRequest(
                context=self._context(),
                gallery=GALLERY,
                subject_id=f"newcomer-{turn}",
                image=face(self._people[turn % len(self._people)].reference),
            )
            for turn in range(number)
        ]


def scenario(name: str, address: str, requests: Requests, flags: list[str], scratch: Path) -> bool:
    """Runs every file of the scenario at once, and prints what each ghz said. Returns whether all of them ended well."""
    runs = sorted((HERE / name).glob("*.json"))
    print(f"\n== {name}: preparing", flush=True)
    data = {}
    for run in runs:
        data[run] = scratch / f"{name}-{run.name}"
        messages = requests.of(json.loads(run.read_text()))
        as_json = [json_format.MessageToDict(m, preserving_proto_field_name=True) for m in messages]
        data[run].write_text(json.dumps(as_json))

    def ghz(run: Path) -> subprocess.CompletedProcess:
        time.sleep(STARTS_AFTER_S.get(f"{name}/{run.stem}", 0))
        command = ["ghz", "--config", run, "--data-file", data[run], *flags, address]
        return subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    with ThreadPoolExecutor(len(runs)) as pool:
        for run, done in zip(runs, pool.map(ghz, runs)):
            shown = " ".join(["ghz", "--config", str(run.relative_to(ROOT)), *flags])
            print(f"\n$ {shown}\n{done.stdout}", flush=True)
            if done.returncode != 0:
                return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(SCENARIOS)}; all by default")
    own, flags = sys.argv[1:], []
    if "--" in own:
        own, flags = own[: own.index("--")], own[own.index("--") + 1 :]
    names = parser.parse_args(own).scenarios or SCENARIOS
    for name in names:
        if name not in SCENARIOS:
            parser.error(f"{name}: expected one of {', '.join(SCENARIOS)}")
    people = faces.people()
    with (
        tempfile.TemporaryDirectory(prefix="vultus-ghz-") as scratch,
        Server(VULTUS, ROOT / "data/models", POLICY) as server,
        Vultus(server.address, "counters") as counters,
        Vultus(server.address, "back-office") as back_office,
    ):
        for number, person in enumerate(people):
            back_office.enrol(GALLERY, f"subject-{number}", person.reference)
        requests = Requests(counters, people)
        good = [scenario(name, server.address, requests, flags, Path(scratch)) for name in names]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
