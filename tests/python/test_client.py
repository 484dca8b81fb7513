#!/usr/bin/env python3
"""The Python client against a real server: what a front end sees, over the wire, with typed refusals.

Run it as it is (`make test-python`); the last line says how many passed and failed.
"""

import re
import sys
import unittest
import urllib.request
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "clients/python"), str(Path(__file__).parent)]

import faces
from grpc import StatusCode
from server import Server
from vultus_client import Refused, Vultus, face, v1

VULTUS = ROOT / "target/release/vultus"
MODELS = ROOT / "data/models"
GALLERY = "subscribers"

# Everything that differs between two equal answers.
PER_CALL = ("transaction_id", "timings", "score")


def setUpModule() -> None:
    global server, shop, kiosk, reviewer, enrolled, duplicate, stranger
    enrolled, duplicate, stranger = faces.people()
    server = unittest.enterModuleContext(Server(VULTUS, MODELS))
    shop = unittest.enterModuleContext(Vultus(server.address, "shop"))
    kiosk = unittest.enterModuleContext(Vultus(server.address, "kiosk"))
    reviewer = unittest.enterModuleContext(Vultus(server.address, "back-office", reviewer="reviewer-1"))
    shop.enrol(GALLERY, "subject-1", enrolled.reference)
    # One person under two identities: what Identify is for.
    shop.enrol(GALLERY, "subject-2", duplicate.reference)
    shop.enrol(GALLERY, "subject-3", duplicate.probe)


class Case(unittest.TestCase):
    def assert_refused(self, code: StatusCode, reason: str, request, client=None, field: str = "") -> Refused:
        """The code, a stable reason, the field to mend, and no word of the request's content."""
        with self.assertRaises(Refused) as caught:
            (client or shop).send(request)
        refused = caught.exception
        self.assertEqual((refused.code, refused.reason), (code, reason), refused)
        self.assertTrue(refused.domain and refused.message, refused)
        if field:
            self.assertEqual(refused.fields, [field], refused)
        return refused


class Verification(Case):
    def test_a_mated_probe_matches_and_earns_a_receipt(self):
        answer = shop.verify(GALLERY, "subject-1", enrolled.probe)
        self.assertEqual(answer.decision, v1.DECISION_MATCH)
        self.assertEqual(answer.reason, v1.DECISION_REASON_SCORE_REACHES_THRESHOLD)
        self.assertTrue(0 < len(answer.receipt) <= 8 * 1024)
        self.assertEqual(answer.alternative_route, "")
        self.assertGreaterEqual(answer.score, answer.threshold)
        self.assertRegex(answer.model_digest, "^[0-9a-f]{64}$")
        self.assertGreater(answer.timings.extract_us, 0)

    def test_a_non_mated_probe_is_shown_another_way(self):
        answer = shop.verify(GALLERY, "subject-1", stranger.probe)
        self.assertEqual(answer.decision, v1.DECISION_NON_MATCH)
        self.assertEqual(answer.reason, v1.DECISION_REASON_SCORE_BELOW_THRESHOLD)
        self.assertIn("second ID document", answer.alternative_route)
        self.assertEqual(answer.receipt, b"")
        self.assertFalse(answer.HasField("receipt_expires_at"))

    def test_an_unknown_subject_looks_like_a_non_match(self):
        answers = [kiosk.verify(GALLERY, subject, stranger.probe) for subject in ("subject-1", "nobody")]
        for answer in answers:
            for name in PER_CALL:
                answer.ClearField(name)
        self.assertEqual(*answers)

    def test_an_inline_reference_matches_but_earns_nothing(self):
        answer = shop.verify_inline(enrolled.reference, enrolled.probe)
        self.assertEqual(answer.decision, v1.DECISION_MATCH)
        self.assertEqual((answer.receipt, answer.gallery_epoch), (b"", 0))

    def test_scores_need_their_own_right(self):
        answer = kiosk.verify(GALLERY, "subject-1", enrolled.probe)
        self.assertEqual(answer.decision, v1.DECISION_MATCH)
        self.assertFalse(answer.HasField("score") or answer.HasField("threshold"))

    def test_the_transaction_comes_back(self):
        request = v1.AssessRequest(context=shop.context(v1.PURPOSE_SIM_ACTIVATION), image=face(enrolled.probe))
        answer = shop.send(request)
        self.assertEqual(answer.transaction_id, request.context.transaction_id)
        self.assertTrue(answer.acceptable and answer.HasField("landmarks") and answer.measures)


class Identification(Case):
    def test_one_identity_is_no_duplicate(self):
        verified = shop.verify(GALLERY, "subject-1", enrolled.probe)
        answer = shop.identify(GALLERY, verified.receipt)
        self.assertEqual(answer.outcome, v1.IDENTIFY_OUTCOME_NO_DUPLICATE)
        self.assertEqual((answer.case_id, answer.alternative_route), ("", ""))

    def test_a_second_identity_opens_a_case(self):
        verified = shop.verify(GALLERY, "subject-2", duplicate.probe)
        answer = shop.identify(GALLERY, verified.receipt)
        self.assertEqual(answer.outcome, v1.IDENTIFY_OUTCOME_REVIEW)
        self.assertIn("second ID document", answer.alternative_route)

        open_cases = [case.case_id for case in reviewer.list_cases(GALLERY).cases]
        self.assertIn(answer.case_id, open_cases)
        case = reviewer.get_case(answer.case_id)
        self.assertEqual(case.claimed_subject_id, "subject-2")
        self.assertEqual(case.opened_by_transaction_id, answer.transaction_id)
        self.assertEqual([(c.rank, c.subject_id) for c in case.candidates], [(1, "subject-3")])
        self.assertTrue(uuid.UUID(case.candidates[0].reference_id))

        asked = v1.GetCaseRequest(context=kiosk.context(v1.PURPOSE_CASE_REVIEW), case_id=answer.case_id)
        self.assert_refused(StatusCode.PERMISSION_DENIED, "NOT_PERMITTED", asked, kiosk)
        asked.context.purpose = v1.PURPOSE_SIM_ACTIVATION
        self.assert_refused(StatusCode.PERMISSION_DENIED, "NOT_PERMITTED", asked, kiosk)

        judged = reviewer.record_verdict(answer.case_id, v1.VERDICT_SAME_PERSON)
        self.assertEqual(judged.verdict, v1.VERDICT_SAME_PERSON)
        self.assertEqual(reviewer.get_case(answer.case_id).judged_by, "reviewer-1")
        self.assertNotIn(answer.case_id, [case.case_id for case in reviewer.list_cases(GALLERY).cases])

    def test_a_receipt_has_one_outcome(self):
        asked = self.identify_request(shop)
        first, again = shop.send(asked), shop.send(asked)
        self.assertEqual((first.outcome, first.case_id), (again.outcome, again.case_id))
        self.assertEqual((first.repeated, again.repeated), (False, True))

    def test_a_receipt_is_of_its_client(self):
        self.assert_refused(StatusCode.PERMISSION_DENIED, "RECEIPT_OF_ANOTHER_CLIENT", self.identify_request(shop), kiosk)

    def test_a_receipt_cannot_be_forged(self):
        asked = self.identify_request(shop)
        whole = asked.receipt
        flipped = bytes([*whole[:-1], whole[-1] ^ 1])
        for forged in (flipped, whole[:-1], whole[:12], b"receipt", bytes(len(whole))):
            asked.receipt = forged
            self.assert_refused(StatusCode.INVALID_ARGUMENT, "RECEIPT_NOT_AUTHENTIC", asked)
        asked.receipt = b""
        self.assert_refused(StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", asked, field="receipt")
        asked.receipt = whole  # none of that spent it
        self.assertEqual(shop.send(asked).outcome, v1.IDENTIFY_OUTCOME_NO_DUPLICATE)

    def identify_request(self, client: Vultus):
        receipt = client.verify(GALLERY, "subject-1", enrolled.probe).receipt
        context = client.context(v1.PURPOSE_SIM_ACTIVATION)
        return v1.IdentifyRequest(context=context, gallery=GALLERY, receipt=receipt)


class Refusals(Case):
    def verify_request(self, probe: bytes | None = None):
        context = shop.context(v1.PURPOSE_SIM_ACTIVATION)
        claim = v1.ClaimedSubject(gallery=GALLERY, subject_id="subject-1")
        return v1.VerifyRequest(context=context, probe=face(probe or enrolled.probe), claimed_subject=claim)

    def test_a_call_without_a_context(self):
        asked = self.verify_request()
        asked.ClearField("context")
        self.assert_refused(StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", asked, field="context")

    def test_a_context_with_a_fault(self):
        faults = {"consent_reference": "", "transaction_id": "no spaces", "site": "x" * 65}
        for name, value in faults.items():
            asked = self.verify_request()
            setattr(asked.context, name, value)
            self.assert_refused(StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", asked, field=f"context.{name}")

    def test_an_unknown_purpose(self):
        for purpose in (v1.PURPOSE_UNSPECIFIED, 99):
            asked = self.verify_request()
            asked.context.purpose = purpose
            self.assert_refused(StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", asked, field="context.purpose")

    def test_a_purpose_that_the_policy_does_not_give(self):
        asked = self.verify_request()
        asked.context.purpose = v1.PURPOSE_NUMBER_PORTING
        self.assert_refused(StatusCode.PERMISSION_DENIED, "NOT_PERMITTED", asked)

    def test_a_context_is_checked_before_any_image(self):
        asked = self.verify_request(b"no image at all")
        asked.context.purpose = v1.PURPOSE_UNSPECIFIED
        self.assert_refused(StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", asked, field="context.purpose")

    def test_an_unknown_or_nameless_client(self):
        with Vultus(server.address, "nobody") as nobody:
            self.assert_refused(StatusCode.PERMISSION_DENIED, "NOT_PERMITTED", self.verify_request(), nobody)
        with Vultus(server.address, "") as nameless:
            self.assert_refused(StatusCode.UNAUTHENTICATED, "CLIENT_MISSING", self.verify_request(), nameless)

    def test_a_gallery_of_others(self):
        asked = self.verify_request()
        asked.claimed_subject.gallery = "others"
        self.assert_refused(StatusCode.PERMISSION_DENIED, "NOT_PERMITTED", asked)

    def test_an_image_over_the_limits(self):
        over = {"bytes": bytes(2 * 1024 * 1024 + 1), "side": faces.png_header(4097, 16), "pixels": faces.png_header(4096, 4096)}
        for limit, probe in over.items():
            with self.subTest(limit):
                asked = self.verify_request(probe)
                self.assert_refused(StatusCode.INVALID_ARGUMENT, "IMAGE_OUT_OF_LIMITS", asked)

    def test_what_is_no_image(self):
        self.assert_refused(StatusCode.INVALID_ARGUMENT, "IMAGE_UNSUPPORTED", self.verify_request(b"just some text"))
        for probe in (enrolled.probe[: len(enrolled.probe) // 2], faces.png_header(64, 64)):
            asked = self.verify_request(probe)
            self.assert_refused(StatusCode.INVALID_ARGUMENT, "IMAGE_MALFORMED", asked)

    def test_landmarks_that_are_no_face(self):
        asked = self.verify_request()
        for name in ("left_eye", "right_eye", "nose_tip", "left_mouth_corner", "right_mouth_corner"):
            getattr(asked.probe.landmarks, name).x = 10.0
        self.assert_refused(StatusCode.INVALID_ARGUMENT, "LANDMARKS_IMPLAUSIBLE", asked)

    def test_a_rate_laxer_than_the_policy(self):
        asked = self.verify_request()
        asked.max_fmr = 0.5
        self.assert_refused(StatusCode.INVALID_ARGUMENT, "RATE_LAXER_THAN_POLICY", asked)

    def test_an_empty_selector_erases_nothing(self):
        context = shop.context(v1.PURPOSE_DATA_SUBJECT_REQUEST)
        asked = v1.EraseRequest(context=context, gallery=GALLERY)
        self.assert_refused(StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", asked, field="selector")


class Surroundings(Case):
    def test_one_bad_item_does_not_fail_a_stream(self):
        def item(number: int, subject: str, image: bytes):
            context = shop.context(v1.PURPOSE_SIM_ACTIVATION)
            enrolment = v1.EnrolRequest(context=context, gallery=GALLERY, subject_id=subject, image=face(image))
            return v1.EnrolStreamRequest(item=number, enrolment=enrolment)

        items = [item(1, "subject-9", stranger.reference), item(2, "subject-9", b"text"), item(3, "", stranger.probe)]
        answers = {answer.item: answer for answer in shop.enrol_stream(items)}
        self.assertEqual(answers.keys(), {1, 2, 3})
        self.assertTrue(uuid.UUID(answers[1].enrolled.reference_id))
        refused = [answers[number].refused.code for number in (2, 3)]
        self.assertEqual(refused, [StatusCode.INVALID_ARGUMENT.value[0]] * 2)

        asked = v1.EraseRequest(context=shop.context(v1.PURPOSE_DATA_SUBJECT_REQUEST), gallery=GALLERY)
        asked.subject_id = "subject-9"
        self.assertEqual([shop.send(asked).erased_references for _ in range(2)], [1, 0])

    def test_the_gallery_is_described(self):
        asked = v1.DescribeGalleryRequest(context=shop.context(v1.PURPOSE_OPERATIONS), gallery=GALLERY)
        described = shop.send(asked)
        self.assertEqual((described.gallery, described.subjects, described.references), (GALLERY, 3, 3))

    def test_metrics_are_served_without_identities(self):
        with urllib.request.urlopen(server.metrics, timeout=10) as answer:
            text = answer.read().decode()
        self.assertRegex(text, re.compile("^vultus_[a-z_]+_seconds_bucket", re.MULTILINE))
        self.assertNotIn("subject-1", text)


def main() -> int:
    result = unittest.main(exit=False, verbosity=2).result
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    print(f"{max(result.testsRun - failed, 0)} passed, {failed} failed", flush=True)
    return 0 if result.testsRun and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
