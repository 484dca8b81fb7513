//! The back office's day: cases are listed, read, judged and counted; findings are not lost.

use std::time::{Duration, Instant};

use tonic::{Code, Request};
use vultus::rpc::pb::{self, IdentifyOutcome, Verdict};

use crate::{
    faces::PEOPLE,
    requests::{case, enrol, identify, list_cases, of, record_verdict, refusal, verify},
    server::{CONFIG, Server},
};

const GALLERY: &str = "subscribers";

/// A server on which `alice` stands a second time, as `anna`; and receipts for her.
async fn with_a_duplicate(dir: &std::path::Path, config: &str, receipts: usize) -> (Server, Vec<prost::bytes::Bytes>) {
    let server = Server::start_with(dir, config);
    let mut gallery = server.gallery().await;
    for (subject, image) in [("alice", &PEOPLE[0].reference), ("anna", &PEOPLE[0].probe)] {
        gallery.enrol(of("shop", enrol(GALLERY, subject, image.clone()))).await.unwrap();
    }
    let mut earned = Vec::new();
    for _ in 0..receipts {
        let request = verify(GALLERY, "anna", PEOPLE[0].probe.clone());
        earned.push(server.matching().await.verify(of("shop", request)).await.unwrap().into_inner().receipt);
    }
    (server, earned)
}

#[tokio::test]
async fn cases_are_worked_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let (server, receipts) = with_a_duplicate(dir.path(), CONFIG, 3).await;
    let (mut matching, mut review) = (server.matching().await, server.review().await);
    let mut opened = Vec::new();
    for receipt in receipts {
        let answer = matching.identify(of("shop", identify(GALLERY, receipt))).await.unwrap().into_inner();
        assert_eq!(answer.outcome(), IdentifyOutcome::Review);
        // Of two references, one is searched: FPIR 0.5 asks for the card's first point, which misses none of its mated pairs.
        assert_eq!(answer.expected_fnir, Some(0.0));
        opened.push(answer.case_id);
    }
    let mut page =
        async |token: &str| review.list_cases(of("auditor", list_cases(GALLERY, 2, token))).await.unwrap().into_inner();
    let first = page("").await;
    let second = page(&first.next_page_token).await;
    let listed: Vec<_> = first.cases.iter().chain(&second.cases).map(|case| case.case_id.clone()).collect();
    assert_eq!((listed, second.next_page_token.as_str()), (opened.clone(), ""));
    assert_eq!((first.cases[0].candidates, first.cases[0].opened_by_transaction_id.as_str()), (1, "t-1"));

    let mut review = server.review().await;
    let verdict = record_verdict(&opened[1], Verdict::OtherPerson);
    let recorded = review.record_verdict(of("back-office", verdict)).await.unwrap().into_inner();
    assert!(recorded.verdict() == Verdict::OtherPerson && recorded.judged_at.is_some());
    let verdict = record_verdict(&opened[0], Verdict::SamePerson);
    review.record_verdict(of("auditor", verdict)).await.unwrap();
    let shown = review.get_case(of("auditor", case(&opened[1]))).await.unwrap().into_inner();
    assert_eq!(shown.verdict(), Verdict::OtherPerson);
    assert_eq!((shown.judged_by_client.as_str(), shown.judged_by.as_str()), ("back-office", "reviewer-7"));
    assert!(shown.earlier_judgements.is_empty());
    // Another reviewer disagrees: both verdicts are kept, and the later one stands.
    let second =
        pb::RecordVerdictRequest { reviewer: "reviewer-8".into(), ..record_verdict(&opened[0], Verdict::Unclear) };
    review.record_verdict(of("auditor", second)).await.unwrap();
    let shown = review.get_case(of("auditor", case(&opened[0]))).await.unwrap().into_inner();
    assert_eq!((shown.verdict(), shown.judged_by.as_str()), (Verdict::Unclear, "reviewer-8"));
    let [earlier] = &shown.earlier_judgements[..] else { panic!("{shown:?}") };
    assert_eq!((earlier.verdict(), earlier.reviewer.as_str()), (Verdict::SamePerson, "reviewer-7"));
    let third = record_verdict(&opened[0], Verdict::SamePerson);
    review.record_verdict(of("auditor", third)).await.unwrap();
    let left = review.list_cases(of("auditor", list_cases(GALLERY, 0, ""))).await.unwrap().into_inner();
    assert_eq!(left.cases.iter().map(|case| &case.case_id).collect::<Vec<_>>(), [&opened[2]]);

    let refused = |reason: &str, code| (code, reason.to_owned());
    let unknown = record_verdict("5f0c6c1e-8a57-4c0e-9b57-0d2f5b0e8c11", Verdict::Unclear);
    let answer = review.record_verdict(of("auditor", unknown)).await;
    assert_eq!(refusal(answer), refused("NOT_FOUND", Code::NotFound));
    let none = record_verdict(&opened[0], Verdict::Unspecified);
    let answer = review.record_verdict(of("auditor", none)).await;
    assert_eq!(refusal(answer), refused("FIELD_INVALID", Code::InvalidArgument));
    let answer = review.list_cases(of("auditor", list_cases(GALLERY, 101, ""))).await;
    assert_eq!(refusal(answer), refused("FIELD_INVALID", Code::InvalidArgument));

    let answer = review.list_cases(of("auditor", list_cases(GALLERY, 2, &opened[0][1..]))).await;
    assert_eq!(refusal(answer), refused("FIELD_INVALID", Code::InvalidArgument));
    let answer = review.list_cases(of("auditor", list_cases(GALLERY, 2, "5f0c6c1e-8a57-4c0e-9b57-0d2f5b0e8c11"))).await;
    assert_eq!(refusal(answer), refused("PAGE_UNKNOWN", Code::InvalidArgument));
    // Nobody looks, or judges, without saying who.
    let nobody = String::new;
    let answer =
        review.list_cases(of("auditor", pb::ListCasesRequest { reviewer: nobody(), ..list_cases(GALLERY, 2, "") }));
    assert_eq!(refusal(answer.await), refused("FIELD_INVALID", Code::InvalidArgument));
    let answer = review.get_case(of("auditor", pb::GetCaseRequest { reviewer: nobody(), ..case(&opened[0]) })).await;
    assert_eq!(refusal(answer), refused("FIELD_INVALID", Code::InvalidArgument));
    let verdict = record_verdict(&opened[2], Verdict::Unclear);
    let answer = review.record_verdict(of("auditor", pb::RecordVerdictRequest { reviewer: nobody(), ..verdict })).await;
    assert_eq!(refusal(answer), refused("FIELD_INVALID", Code::InvalidArgument));
    let other = pb::GetCaseRequest { reviewer: "reviewer-8".into(), ..case(&opened[0]) };
    review.get_case(of("auditor", other)).await.unwrap();

    let metrics = server.scrape();
    for line in [
        "vultus_case_lookups_total{client=\"auditor\",reviewer=\"reviewer-7\",what=\"list\"} 3",
        "vultus_case_lookups_total{client=\"auditor\",reviewer=\"reviewer-7\",what=\"case\"} 2",
        "vultus_case_lookups_total{client=\"auditor\",reviewer=\"reviewer-8\",what=\"case\"} 1",
        "vultus_case_verdicts{verdict=\"other_person\"} 1",
        "vultus_case_verdicts{verdict=\"same_person\"} 1",
        // Three of three searches opened a case, and half of those that were judged are false.
        "vultus_field_false_positive_rate 0.5",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    // The log's thread runs when a core is idle, as the calls do, and may be a little behind.
    let started = Instant::now();
    while !server.log().contains("reviewer=reviewer-7") {
        assert!(started.elapsed() < Duration::from_secs(5), "who looks stands in the log: {}", server.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn a_found_duplicate_outlives_its_callers_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let (server, receipts) = with_a_duplicate(dir.path(), CONFIG, 24).await;
    let mut review = server.review().await;
    let mut cut = 0;
    for (receipt, step) in receipts.iter().zip(0..) {
        // From before the search to after the answer.
        let mut request: Request<pb::IdentifyRequest> = of("shop", identify(GALLERY, receipt.clone()));
        request.set_timeout(Duration::from_micros(100 + 150 * step));
        cut += usize::from(server.matching().await.identify(request).await.is_err());
        let mut answers = Vec::new();
        for _ in 0..2 {
            let again = server.matching().await.identify(of("shop", identify(GALLERY, receipt.clone()))).await;
            answers.push(again.unwrap().into_inner());
        }
        assert_eq!(answers[0].outcome(), IdentifyOutcome::Review);
        assert_eq!((&answers[0].case_id, true), (&answers[1].case_id, answers[1].repeated));
    }
    println!("{cut} of 24 calls were cut off");
    assert!(cut > 0, "no call was cut off");
    let listed = review.list_cases(of("auditor", list_cases(GALLERY, 100, ""))).await.unwrap().into_inner();
    assert_eq!(listed.cases.len(), 24, "one case for each receipt");
}

#[tokio::test]
async fn a_search_that_the_card_cannot_answer_for_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // For one false alarm in ten thousand the card extrapolates a threshold at which it would miss more than a third.
    let config = CONFIG.replace("max_fpir = 0.5\nmax_fnir = 0.5", "max_fpir = 0.001");
    let (server, receipts) = with_a_duplicate(dir.path(), &config, 1).await;
    for _ in 0..2 {
        let answer = server.matching().await.identify(of("shop", identify(GALLERY, receipts[0].clone()))).await;
        assert_eq!(refusal(answer), (Code::FailedPrecondition, "EXPECTED_FNIR_TOO_HIGH".to_owned()));
    }
    assert!(server.log().contains("refused_from=1"), "the start says from which size on searches are refused");
    assert!(server.terminate().success());
    // It spent no receipt: with a policy that accepts the misses it is answered.
    let lax = config.replace("max_fpir = 0.001", "max_fpir = 0.001\nmax_fnir = 1.0");
    let server = Server::start_with(dir.path(), &lax);
    let answer = server.matching().await.identify(of("shop", identify(GALLERY, receipts[0].clone()))).await.unwrap();
    assert_eq!(answer.into_inner().expected_fnir, Some(0.4125));
}
