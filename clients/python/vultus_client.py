#!/usr/bin/env python3
"""A small client for Vultus: stubs made from the contract in proto/ when it starts, nothing generated is kept.

As a program it sends one request and prints the answer as one JSON object:

    vultus_client.py enrol subscribers subject-1 id-photo.jpg
    vultus_client.py verify subscribers subject-1 counter.jpg > verified.json
    vultus_client.py identify subscribers "$(jq -r .receipt verified.json)"
    vultus_client.py get-case 0a2c4b1e-...

Exit code, as of `vultus` itself: 0 for MATCH, NO_DUPLICATE and every answer that is no question, 1 when the service
refuses the request or is not there, 2 for bad arguments, 3 for NON_MATCH and REVIEW, 4 for UNDETERMINED.
"""

import argparse
import base64
import importlib
import json
import sys
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import grpc
import grpc_tools
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parents[2] / "proto"


def load_contract(proto: Path = PROTO) -> SimpleNamespace:
    """Compiles vultus/v1 into a temporary folder and imports it: every message, enum and stub by its plain name."""
    files = sorted(path.relative_to(proto).as_posix() for path in (proto / "vultus/v1").glob("*.proto"))
    well_known = Path(grpc_tools.__file__).parent / "_proto"
    names: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="vultus-stubs-") as out:
        arguments = ["protoc", f"-I{proto}", f"-I{well_known}", f"--python_out={out}", f"--grpc_python_out={out}"]
        if protoc.main(arguments + files) != 0:
            raise RuntimeError(f"the contract in {proto} does not compile")
        sys.path.insert(0, out)
        try:
            for file in files:
                module = file.removesuffix(".proto").replace("/", ".")
                names |= vars(importlib.import_module(f"{module}_pb2"))
                names |= vars(importlib.import_module(f"{module}_pb2_grpc"))
        finally:
            sys.path.remove(out)
    return SimpleNamespace(**names)


v1 = load_contract()


@dataclass
class Refused(Exception):
    """The service refused a request: the status, and its typed details."""

    code: grpc.StatusCode
    message: str
    reason: str = ""  # google.rpc.ErrorInfo: stable, for programs
    domain: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    fields: list[str] = field(default_factory=list)  # google.rpc.BadRequest: what to mend

    def __str__(self) -> str:
        return f"{self.code.name} {self.reason} {','.join(self.fields)}: {self.message}"

    @classmethod
    def from_rpc(cls, error: grpc.RpcError) -> "Refused":
        refused = cls(error.code(), error.details() or "")
        trailers = dict(error.trailing_metadata() or ())
        status = status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b""))
        for detail in status.details:
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                refused.reason, refused.domain, refused.metadata = info.reason, info.domain, dict(info.metadata)
            elif detail.Unpack(bad):
                refused.fields = [violation.field for violation in bad.field_violations]
        return refused


class Vultus:
    """The three services, as one client. Plaintext: the service is on this machine. Close it, or use it in a `with`."""

    def __init__(self, address: str, client: str, reviewer: str = "", site: str = "python", deadline_s: float = 30.0):
        self._channel = grpc.insecure_channel(address)
        self._match = v1.MatchServiceStub(self._channel)
        self._gallery = v1.GalleryServiceStub(self._channel)
        self._review = v1.ReviewServiceStub(self._channel)
        self._metadata = (("vultus-client", client),) if client else ()
        self._reviewer = reviewer
        self._site = site
        self._deadline_s = deadline_s

    def __enter__(self) -> "Vultus":
        return self

    def __exit__(self, *_) -> None:
        self._channel.close()

    def context(self, purpose: int, consent: str = "consent-python"):
        """A context with a fresh transaction id."""
        return v1.RequestContext(
            purpose=purpose, consent_reference=consent, transaction_id=f"py-{uuid.uuid4()}", site=self._site
        )

    def call(self, method, request):
        """Sends a request as it is; `Refused` tells what the service made of a bad one."""
        try:
            return method(request, metadata=self._metadata, timeout=self._deadline_s)
        except grpc.RpcError as error:
            raise Refused.from_rpc(error) from None

    def send(self, request):
        """Sends a request to the one method that takes it."""
        service = dict.fromkeys(("Verify", "Identify", "Assess"), self._match)
        service |= dict.fromkeys(("ListCases", "GetCase", "RecordVerdict"), self._review)
        name = type(request).__name__.removesuffix("Request")
        return self.call(getattr(service.get(name, self._gallery), name), request)

    def enrol(self, gallery: str, subject: str, image: bytes):
        return self.send(v1.EnrolRequest(context=self._activation(), gallery=gallery, subject_id=subject, image=face(image)))

    def enrol_stream(self, items):
        """A status per item of `v1.EnrolStreamRequest`, in the order of completion."""
        yield from self._gallery.EnrolStream(iter(items), metadata=self._metadata, timeout=self._deadline_s)

    def verify(self, gallery: str, subject: str, probe: bytes):
        claim = v1.ClaimedSubject(gallery=gallery, subject_id=subject)
        return self.send(v1.VerifyRequest(context=self._activation(), probe=face(probe), claimed_subject=claim))

    def verify_inline(self, reference: bytes, probe: bytes):
        return self.send(
            v1.VerifyRequest(context=self._activation(), probe=face(probe), inline_reference=face(reference))
        )

    def identify(self, gallery: str, receipt: bytes):
        return self.send(v1.IdentifyRequest(context=self._activation(), gallery=gallery, receipt=receipt))

    def assess(self, image: bytes):
        return self.send(v1.AssessRequest(context=self._activation(), image=face(image)))

    def list_cases(self, gallery: str, page_token: str = ""):
        """A page of open cases, oldest first."""
        return self._look(v1.ListCasesRequest(gallery=gallery, page_token=page_token))

    def get_case(self, case_id: str):
        return self._look(v1.GetCaseRequest(case_id=case_id))

    def record_verdict(self, case_id: str, verdict: int):
        return self._look(v1.RecordVerdictRequest(case_id=case_id, verdict=verdict))

    def _look(self, request):
        """Fills in why, and who: the service counts looks at cases by reviewer."""
        request.context.CopyFrom(self.context(v1.PURPOSE_CASE_REVIEW))
        request.reviewer = self._reviewer
        return self.send(request)

    def _activation(self):
        return self.context(v1.PURPOSE_SIM_ACTIVATION)


def face(encoded: bytes):
    """An image from the bytes of a JPEG, PNG, WebP or JPEG 2000 file."""
    return v1.FaceImage(encoded=encoded)


def chip_portrait(dg2: bytes, passive_authentication: int):
    """The portrait in an ID's chip, from the content of EF.DG2, with what the front end found of its signature."""
    return v1.FaceImage(chip_portrait=dg2, passive_authentication=passive_authentication)


EXIT_REFUSED, EXIT_NEGATIVE, EXIT_UNDETERMINED = 1, 3, 4


def exit_code(answer) -> int:
    decision, outcome = getattr(answer, "decision", 0), getattr(answer, "outcome", 0)
    if decision == v1.DECISION_UNDETERMINED:
        return EXIT_UNDETERMINED
    negative = decision == v1.DECISION_NON_MATCH or outcome == v1.IDENTIFY_OUTCOME_REVIEW
    return EXIT_NEGATIVE if negative else 0


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--address", default="127.0.0.1:7443", help="host and port of the service (%(default)s)")
    parser.add_argument("--client", default="shop", help="the name that the service's policy knows (%(default)s)")
    parser.add_argument("--reviewer", default="", help="who looks at cases: opaque, never a name; needed for the last three")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("enrol", "verify"):
        command = commands.add_parser(name)
        command.add_argument("gallery")
        command.add_argument("subject")
        command.add_argument("image", type=Path, help="a JPEG, PNG, WebP or JPEG 2000 file with one face that fills most of it")
    command = commands.add_parser("identify")
    command.add_argument("gallery")
    command.add_argument("receipt", type=lambda text: base64.b64decode(text, validate=True), help="base64, from verify")
    command = commands.add_parser("list-cases", help="for a client with the right `review`: --client back-office")
    command.add_argument("gallery")
    command = commands.add_parser("get-case")
    command.add_argument("case_id")
    command = commands.add_parser("record-verdict")
    command.add_argument("case_id")
    command.add_argument("verdict", choices=("same_person", "other_person", "unclear"))
    return parser.parse_args()


def main() -> int:
    asked = parse_arguments()
    with Vultus(asked.address, asked.client, asked.reviewer) as vultus:
        try:
            match asked.command:
                case "enrol":
                    answer = vultus.enrol(asked.gallery, asked.subject, asked.image.read_bytes())
                case "verify":
                    answer = vultus.verify(asked.gallery, asked.subject, asked.image.read_bytes())
                case "identify":
                    answer = vultus.identify(asked.gallery, asked.receipt)
                case "list-cases":
                    answer = vultus.list_cases(asked.gallery)
                case "record-verdict":
                    verdict = v1.Verdict.Value(f"VERDICT_{asked.verdict.upper()}")
                    answer = vultus.record_verdict(asked.case_id, verdict)
                case _:
                    answer = vultus.get_case(asked.case_id)
        except (Refused, OSError) as error:
            print(f"vultus_client: {error}", file=sys.stderr)
            return EXIT_REFUSED
    print(json.dumps(json_format.MessageToDict(answer, preserving_proto_field_name=True), indent=2))
    return exit_code(answer)


if __name__ == "__main__":
    sys.exit(main())
