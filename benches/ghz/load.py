#!/usr/bin/env python3
"""Starts a server with its own data, prepares requests, and lets ghz send them. Called by run.sh.

Requests are written to a temporary folder as ghz's data: an array that it sends in turn. A receipt works once, so
Identify gets as many as it sends.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "clients/python"), str(ROOT / "tests/python")]

import faces
from google.protobuf import json_format
from server import Server
from vultus_client import Vultus, face, v1

VULTUS = ROOT / "target/release/vultus"
GALLERY = "subscribers"
EARNERS = 8  # clients that earn receipts side by side


def verify_requests(vultus: Vultus, people: list[faces.Person]) -> list:
    """Everyone's probe against everyone's reference."""
    return [
        v1.VerifyRequest(
            context=vultus.context(v1.PURPOSE_SIM_ACTIVATION),
            probe=face(person.probe),
            claimed_subject=v1.ClaimedSubject(gallery=GALLERY, subject_id=f"subject-{claimed}"),
        )
        for person in people
        for claimed in range(len(people))
    ]


def identify_requests(vultus: Vultus, people: list[faces.Person], number: int) -> list:
    """Each with a receipt of its own."""

    def earn(turn: int):
        subject = turn % len(people)
        receipt = vultus.verify(GALLERY, f"subject-{subject}", people[subject].probe).receipt
        context = vultus.context(v1.PURPOSE_SIM_ACTIVATION)
        return v1.IdentifyRequest(context=context, gallery=GALLERY, receipt=receipt)

    with ThreadPoolExecutor(EARNERS) as pool:
        return list(pool.map(earn, range(number)))


def ghz(scenario: str, address: str, requests: list, flags: list[str]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".json", prefix="vultus-ghz-") as data:
        json.dump([json_format.MessageToDict(r, preserving_proto_field_name=True) for r in requests], data)
        data.flush()
        command = ["ghz", "--config", f"benches/ghz/{scenario}.json", "--data-file", data.name, *flags, address]
        print(f"\n{' '.join(command)}", flush=True)
        subprocess.run(command, check=True, cwd=ROOT)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--receipts", type=int, default=200, help="how many Identify requests (%(default)s)")
    parser.add_argument("flags", nargs="*", help="flags of ghz for Verify, after --")
    asked = parser.parse_args()
    people = faces.people()
    with Server(VULTUS, ROOT / "data/models") as server, Vultus(server.address, "shop") as vultus:
        for number, person in enumerate(people):
            vultus.enrol(GALLERY, f"subject-{number}", person.reference)
        ghz("verify", server.address, verify_requests(vultus, people), asked.flags)
        print(f"\nearning {asked.receipts} receipts")
        ghz("identify", server.address, identify_requests(vultus, people, asked.receipts), ["--total", str(asked.receipts)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
