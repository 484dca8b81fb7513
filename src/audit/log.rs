//! Decisions as lines of the log, on which their span says who asked, why, and in which transaction.

use std::future::ready;

use super::{Decided, DecisionEvent, Recording, Sink};

/// Prints each event; never fails.
#[derive(Debug, Clone, Copy)]
pub struct Log;

impl Sink for Log {
    fn record(&self, event: DecisionEvent) -> Recording<'_> {
        let (gallery, position) = (event.gallery.as_ref().map(|name| name.as_str()), event.position);
        print(event.decided, gallery, position);
        Box::pin(ready(Ok(())))
    }
}

fn print(decided: Decided, gallery: Option<&str>, position: Option<u64>) {
    match decided {
        Decided::Verified { reason, receipt, chip } => {
            tracing::info!(
                decision = reason.decision().as_str(),
                reason = reason.as_str(),
                receipt,
                chip,
                gallery,
                position,
                "verified"
            );
        }
        Decided::Identified { case, repeated } => {
            let outcome = if case.is_some() { "review" } else { "no_duplicate" };
            tracing::info!(outcome, repeated, gallery, position, "identified");
        }
        Decided::Enrolled { reference, repeated, chip } => {
            tracing::info!(reference_id = %reference, repeated, chip, gallery, position, "enrolled");
        }
        Decided::Erased { references, .. } => tracing::info!(references, gallery, position, "erased"),
        Decided::CasesListed { cases, reviewer } => tracing::info!(cases, %reviewer, gallery, position, "cases listed"),
        Decided::CaseShown { case, reviewer } => {
            tracing::info!(case_id = %case, %reviewer, gallery, position, "case shown")
        }
        Decided::CaseJudged { case, verdict, reviewer } => {
            tracing::info!(case_id = %case, verdict = verdict.as_str(), reviewer = reviewer.as_str(), gallery, position, "case judged");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use super::*;
    use crate::domain::{
        CaseId, ClientId, ConsentReference, GalleryName, Purpose, Reason, ReferenceId, RequestContext, ReviewerId,
        Site, SubjectId, TransactionId, Verdict,
    };

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What the log says, a line for each.
    fn said(decisions: impl IntoIterator<Item = Decided>) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let format = tracing_subscriber::fmt().without_time().with_target(false).with_ansi(false);
        let context = RequestContext {
            purpose: Purpose::SimActivation,
            consent_reference: ConsentReference::new("consent-1").unwrap(),
            transaction_id: TransactionId::new("t-1").unwrap(),
            site: Site::new("shop-7").unwrap(),
        };
        tracing::subscriber::with_default(format.with_writer(move || writer.clone()).finish(), || {
            for decided in decisions {
                let event = DecisionEvent {
                    gallery: Some(GalleryName::new("subscribers").unwrap()),
                    position: Some(7),
                    subject: Some(SubjectId::new("alice").unwrap()),
                    ..DecisionEvent::new(&ClientId::new("shop").unwrap(), &context, decided)
                };
                let mut recorded = Log.record(event);
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                assert!(recorded.as_mut().poll(&mut context).is_ready(), "the log keeps nobody waiting");
            }
        });
        let bytes = std::mem::take(&mut *lines.0.lock().unwrap());
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn every_decision_has_its_line() {
        const ID: &str = "5f0c6c1e-8a57-4c0e-9b57-0d2f5b0e8c11";
        let (reference, case) = (ReferenceId::parse(ID).unwrap(), CaseId::parse(ID).unwrap());
        let reviewer = ReviewerId::new("reviewer-7").unwrap();
        let lines = said([
            Decided::Verified { reason: Reason::ScoreReachesThreshold, receipt: true, chip: None },
            Decided::Verified { reason: Reason::ScoreBelowThreshold, receipt: false, chip: Some("passed") },
            Decided::Identified { case: None, repeated: false },
            Decided::Identified { case: Some(case), repeated: true },
            Decided::Enrolled { reference, repeated: true, chip: None },
            Decided::Enrolled { reference, repeated: false, chip: Some("not_checked") },
            Decided::Erased { reference: Some(reference), references: 1 },
            Decided::CasesListed { cases: 2, reviewer: reviewer.clone() },
            Decided::CaseShown { case, reviewer: reviewer.clone() },
            Decided::CaseJudged { case, verdict: Verdict::SamePerson, reviewer },
        ]);
        let expected = [
            "verified decision=\"match\" reason=\"score_reaches_threshold\" receipt=true".to_owned(),
            "verified decision=\"non_match\" reason=\"score_below_threshold\" receipt=false chip=\"passed\"".into(),
            "identified outcome=\"no_duplicate\" repeated=false".into(),
            "identified outcome=\"review\" repeated=true".into(),
            format!("enrolled reference_id={ID} repeated=true"),
            format!("enrolled reference_id={ID} repeated=false chip=\"not_checked\""),
            "erased references=1".into(),
            "cases listed cases=2 reviewer=reviewer-7".into(),
            format!("case shown case_id={ID} reviewer=reviewer-7"),
            format!("case judged case_id={ID} verdict=\"same_person\" reviewer=\"reviewer-7\""),
        ];
        let said: Vec<_> = lines.lines().map(|line| line.trim_start().trim_start_matches("INFO ")).collect();
        let expected = expected.map(|line| line + " gallery=\"subscribers\" position=7");
        assert_eq!(said, expected);
    }
}
