//! What happens at the counter, step by step, and what came of it.

use std::{collections::BTreeMap, time::Instant};

use serde::Serialize;

use super::{
    Narrator,
    client::{BACK_OFFICE, Client, FRONT_END, image},
    faces::{Person, Probe},
};
use crate::{
    cli::{Failure, report::Refused},
    rpc::pb,
};

/// One verification.
#[derive(Debug, Serialize)]
pub struct Verification {
    /// Who is claimed.
    pub subject: String,
    /// Who is in the image, and how.
    pub probe: String,
    pub mated: bool,
    pub decision: &'static str,
    pub score: Option<f32>,
    /// As the front end sees it, milliseconds.
    pub ms: f64,
}

/// How many, and how many as they should be.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub struct Count {
    pub trials: usize,
    pub right: usize,
}

/// The planted duplicate.
#[derive(Debug, Serialize)]
pub struct Duplicate {
    pub person: String,
    pub second_identity: String,
    pub outcome: &'static str,
    pub case_id: String,
    /// Subject and score, as the back office sees them.
    pub candidates: Vec<(String, Option<f32>)>,
    /// What the front end is told when it asks for the case.
    pub front_end_is_told: String,
    /// Open cases before and after the back office has recorded its verdict.
    pub open_cases: (usize, usize),
}

#[derive(Debug, Default, Serialize)]
pub struct Story {
    pub people: usize,
    pub enrolled: usize,
    pub refused: Vec<Refused>,
    pub verifications: Vec<Verification>,
    /// Mated probes that matched.
    pub mated: Count,
    /// Non-mated probes that did not.
    pub non_mated: Count,
    /// Searches after a match, before the duplicate was planted, that found none; the others were false alarms.
    pub no_duplicate: Count,
    /// Share of duplicates that the last search is expected to miss.
    pub expected_fnir: Option<f64>,
    pub duplicate: Option<Duplicate>,
    /// Median of each stage over the verifications, microseconds.
    pub stage_p50_us: BTreeMap<&'static str, u64>,
    /// All went as it should: the duplicate was found, and at most one comparison in ten was wrong.
    pub ok: bool,
}

/// Both clients, and what they have seen so far.
pub struct Teller<'a> {
    pub front_end: &'a Client,
    pub back_office: &'a Client,
    pub narrator: Narrator,
    story: Story,
    timings: Vec<pb::StageTimings>,
}

impl<'a> Teller<'a> {
    pub fn new(front_end: &'a Client, back_office: &'a Client, narrator: Narrator) -> Self {
        Self { front_end, back_office, narrator, story: Story::default(), timings: Vec::new() }
    }

    pub async fn tell(mut self, people: &[Person]) -> Result<Story, Failure> {
        let enrolled = self.enrol(people).await?;
        let [first, ..] = enrolled.as_slice() else { return Err("nobody could be enrolled".into()) };
        self.narrator.say("Verifying (1:1): first everyone as themselves, then as somebody else ...");
        for person in &enrolled {
            for probe in &person.probes {
                self.verify_mated(person, probe).await?;
            }
        }
        for (person, other) in enrolled.iter().zip(enrolled.iter().cycle().skip(1)) {
            if let Some(probe) = person.probes.first().filter(|_| person.subject != other.subject) {
                self.verify_non_mated(person, probe, other).await?;
            }
        }
        self.plant_duplicate(first).await?;
        self.story.stage_p50_us = medians(&self.timings);
        self.story.ok = self.is_ok();
        Ok(self.story)
    }

    /// One reference for each, over one stream; returns those who were enrolled.
    async fn enrol<'p>(&mut self, people: &'p [Person]) -> Result<Vec<&'p Person>, Failure> {
        let count = people.len();
        self.narrator.say(&format!("Enrolling {count} people, one reference each, over one EnrolStream ..."));
        let faces = people.iter().map(|person| (person.subject.clone(), image(&person.reference)));
        let answers = self.front_end.enrol(faces.collect()).await?;
        let mut enrolled = Vec::new();
        for (person, answer) in people.iter().zip(answers) {
            match answer {
                Ok(_) => enrolled.push(person),
                Err(reason) => {
                    self.narrator.say(&format!("  {} ({}) was refused: {reason}", person.subject, person.source));
                    let path = format!("{} ({})", person.source, person.subject);
                    self.story.refused.push(Refused { path, reason });
                }
            }
        }
        (self.story.people, self.story.enrolled) = (count, enrolled.len());
        Ok(enrolled)
    }

    async fn verify_mated(&mut self, person: &Person, probe: &Probe) -> Result<(), Failure> {
        let answer = self.verify(&person.subject, probe.what.clone(), probe, true).await?;
        self.story.mated.trials += 1;
        if answer.decision() == pb::Decision::Match {
            self.story.mated.right += 1;
            let searched = self.front_end.identify(answer.receipt).await?;
            self.story.no_duplicate.trials += 1;
            self.story.no_duplicate.right += usize::from(searched.outcome() == pb::IdentifyOutcome::NoDuplicate);
        }
        Ok(())
    }

    async fn verify_non_mated(&mut self, person: &Person, probe: &Probe, other: &Person) -> Result<(), Failure> {
        let answer = self.verify(&other.subject, format!("{} instead", person.subject), probe, false).await?;
        self.story.non_mated.trials += 1;
        self.story.non_mated.right += usize::from(answer.decision() != pb::Decision::Match);
        Ok(())
    }

    async fn verify(
        &mut self,
        subject: &str,
        what: String,
        probe: &Probe,
        mated: bool,
    ) -> Result<pb::VerifyResponse, Failure> {
        let started = Instant::now();
        let answer = self.front_end.verify(subject, image(&probe.image)).await?;
        let ms = started.elapsed().as_secs_f64() * 1000.0;
        let decision = decision_word(answer.decision());
        self.timings.extend(answer.timings);
        let (subject, score) = (subject.to_owned(), answer.score);
        self.story.verifications.push(Verification { subject, probe: what, mated, decision, score, ms });
        Ok(answer)
    }

    /// Somebody comes back under a second identity.
    async fn plant_duplicate(&mut self, person: &Person) -> Result<(), Failure> {
        let (Some(at_counter), Some(on_id)) = (person.probes.first(), person.probes.last()) else { return Ok(()) };
        let second = format!("{}-again", person.subject);
        self.narrator
            .say(&format!("Planting a duplicate: {} is enrolled a second time, as {second} ...", person.subject));
        let answers = self.front_end.enrol(vec![(second.clone(), image(&on_id.image))]).await?;
        if let Some(Err(reason)) = answers.into_iter().next() {
            return Err(format!("the duplicate could not be planted: {reason}").into());
        }
        let answer = self.verify(&second, at_counter.what.clone(), at_counter, true).await?;
        self.story.mated.trials += 1;
        if answer.decision() != pb::Decision::Match {
            return Ok(()); // no receipt, and so no search: the story's end says that it went wrong
        }
        self.story.mated.right += 1;
        self.narrator.say("Identifying (1:N) with the receipt of that verification: no photo is sent ...");
        let searched = self.front_end.identify(answer.receipt).await?;
        let outcome = searched.outcome();
        self.story.expected_fnir = searched.expected_fnir;
        let mut duplicate = Duplicate {
            person: person.subject.clone(),
            second_identity: second,
            outcome: outcome_word(outcome),
            case_id: searched.case_id,
            candidates: Vec::new(),
            front_end_is_told: String::new(),
            open_cases: (0, 0),
        };
        if outcome == pb::IdentifyOutcome::Review {
            let case = self.back_office.case(&duplicate.case_id).await?;
            duplicate.candidates = case.candidates.into_iter().map(|c| (c.subject_id, c.score)).collect();
            duplicate.front_end_is_told = match self.front_end.case(&duplicate.case_id).await {
                Ok(_) => format!("everything: {FRONT_END} may do what only {BACK_OFFICE} should"),
                Err(status) => format!("{:?}", status.code()),
            };
            let before = self.back_office.open_cases().await?.len();
            self.back_office.judge(&duplicate.case_id, pb::Verdict::SamePerson).await?;
            duplicate.open_cases = (before, self.back_office.open_cases().await?.len());
        }
        self.story.duplicate = Some(duplicate);
        Ok(())
    }

    fn is_ok(&self) -> bool {
        let Story { mated, non_mated, duplicate, .. } = &self.story;
        let wrong = mated.trials + non_mated.trials - mated.right - non_mated.right;
        let found = duplicate.as_ref().is_some_and(|d| {
            let (before, after) = d.open_cases;
            d.candidates.iter().any(|(subject, _)| *subject == d.person)
                && d.front_end_is_told == "PermissionDenied"
                && before == after + 1
        });
        found && mated.trials > 0 && 10 * wrong <= mated.trials + non_mated.trials
    }
}

fn decision_word(decision: pb::Decision) -> &'static str {
    match decision {
        pb::Decision::Match => "MATCH",
        pb::Decision::NonMatch => "NON-MATCH",
        pb::Decision::Undetermined => "UNDETERMINED",
        pb::Decision::Unspecified => "UNSPECIFIED",
    }
}

fn outcome_word(outcome: pb::IdentifyOutcome) -> &'static str {
    match outcome {
        pb::IdentifyOutcome::NoDuplicate => "NO_DUPLICATE",
        pb::IdentifyOutcome::Review => "REVIEW",
        pb::IdentifyOutcome::Unspecified => "UNSPECIFIED",
    }
}

fn medians(timings: &[pb::StageTimings]) -> BTreeMap<&'static str, u64> {
    type Stage = (&'static str, fn(&pb::StageTimings) -> u64);
    const STAGES: [Stage; 6] = [
        ("decode", |t| t.decode_us),
        ("align", |t| t.align_us),
        ("queue", |t| t.queue_us),
        ("extract", |t| t.extract_us),
        ("compare", |t| t.compare_us),
        ("total", |t| t.total_us),
    ];
    let median = |of: fn(&pb::StageTimings) -> u64| {
        let mut values: Vec<u64> = timings.iter().map(of).collect();
        values.sort_unstable();
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    STAGES.map(|(name, of)| (name, median(of))).into()
}
