//! What each change does inside the writer's transaction.

use std::{sync::Arc, time::SystemTime};

use super::{
    batch::{Batch, Step},
    cases::Judged,
    file::File,
    known::Known,
    spent,
};
use crate::{
    domain::{CaseId, GalleryName, Judgement, ModelDigest},
    gallery::{
        CaseError, Clock, CreateError, EnrolError, Enrolled, EraseError, Erased, Finding, Outcome, Selector,
        ServiceTime, Settings, SpendError, StoreError,
        clock::{micros, time},
        store::{Change, Finish, SealedReference, StoredGallery, StoredReference},
    },
    seal::random,
};

/// What a change is made in, and what it goes by.
pub(super) struct Books {
    pub file: File,
    pub known: Known,
    pub settings: Settings,
    pub clock: Arc<Clock>,
}

impl Books {
    pub(super) fn create(
        &self,
        batch: &mut Batch,
        name: GalleryName,
        model: ModelDigest,
        dimension: usize,
    ) -> Step<(), CreateError> {
        let mut known = self.known.values().map(|held| &held.gallery).chain(&batch.created);
        if known.any(|gallery| gallery.name == name) {
            return Ok(Ok(()));
        }
        let limit = self.settings.max_galleries;
        if self.known.len() + batch.created.len() >= limit {
            return Ok(Err(CreateError::TooMany { limit }));
        }
        let Ok(uid) = random() else { return Ok(Err(CreateError::Random)) };
        let created_at = self.wall();
        let mut gallery = StoredGallery { key: 0, uid, name, model, dimension, position: 0, created_at };
        gallery.key = self.file.insert_gallery(&gallery)?;
        batch.created.push(gallery);
        Ok(Ok(()))
    }

    pub(super) fn enrol(&self, batch: &mut Batch, key: i64, new: SealedReference) -> Step<Enrolled, EnrolError> {
        let Some(touched) = batch.touch(&self.known, key) else { return Ok(Err(StoreError::Closed.into())) };
        let id = new.id;
        if let Some(subject) = self.file.owner(key, id)? {
            return Ok(if subject == new.subject.as_str() {
                Ok(Enrolled { id, epoch: touched.position, repeated: true })
            } else {
                Err(EnrolError::Exists { id })
            });
        }
        let limit = self.settings.max_references;
        if touched.references >= limit {
            return Ok(Err(EnrolError::GalleryFull { limit }));
        }
        let limit = self.settings.max_references_per_subject;
        if self.file.count_of_subject(key, &new.subject)? >= limit {
            return Ok(Err(EnrolError::TooManyForSubject { limit }));
        }
        let (enrolled_at, position) = (self.wall(), touched.position + 1);
        let seq = self.file.insert_reference(key, &new, enrolled_at, position)?;
        touched.references += 1;
        touched.position = position;
        touched.changes.push(Change::Enrolled(StoredReference { seq, position, reference: new, enrolled_at }));
        Ok(Ok(Enrolled { id, epoch: position, repeated: false }))
    }

    pub(super) fn erase(&self, batch: &mut Batch, key: i64, selector: &Selector) -> Step<Erased, EraseError> {
        let Some(touched) = batch.touch(&self.known, key) else { return Ok(Err(StoreError::Closed.into())) };
        let gone = match selector {
            Selector::Subject(subject) => self.file.erase_subject(key, subject)?,
            Selector::Reference(id) => self.file.erase_reference(key, *id)?,
        };
        let references = gone.len();
        if references > 0 {
            touched.references = touched.references.saturating_sub(references);
            touched.position += 1;
            touched.erased = true;
            touched.changes.push(Change::Erased(gone));
        }
        Ok(Ok(Erased { references, epoch: touched.position }))
    }

    pub(super) fn finish(&self, batch: &mut Batch, key: i64, finish: &Finish) -> Step<(Outcome, bool), SpendError> {
        if let Some(outcome) = spent::outcome(&self.file.0, finish.nonce)? {
            return Ok(Ok((outcome, true)));
        }
        let now = self.clock.now();
        if finish.expires.after(self.settings.receipt_grace) <= now {
            return Ok(Err(SpendError::Expired));
        }
        let Finding { case, epoch, fnir } = &finish.finding;
        if let Some(case) = case {
            let Some(found) = self.file.still_there(key, &case.candidates, *epoch)? else {
                return Ok(Err(SpendError::Moved));
            };
            if !self.file.insert_case(key, case, &found, now)? {
                return Ok(Err(SpendError::CaseExists { id: case.id }));
            }
        }
        let outcome = Outcome { case: case.as_ref().map(|case| case.id), epoch: *epoch, fnir: *fnir };
        self.file.spend(finish.nonce, finish.expires, &outcome)?;
        self.file.count("searches", 1)?;
        self.file.count("cases", i64::from(case.is_some()))?;
        batch.counted = true;
        Ok(Ok((outcome, false)))
    }

    pub(super) fn judge(&self, batch: &mut Batch, key: i64, id: CaseId, judged: &Judgement) -> Step<bool, CaseError> {
        let before = match self.file.judge(key, id, self.cases_since(), judged)? {
            None => return Ok(Ok(false)),
            Some(Judged::Empty) => return Ok(Err(CaseError::Empty)),
            Some(Judged::Over(before)) => before,
        };
        if let Some(before) = before {
            self.file.count(&before, -1)?;
        }
        self.file.count(judged.verdict.as_str(), 1)?;
        batch.counted = true;
        Ok(Ok(true))
    }

    /// Cases that were opened after it can be judged.
    fn cases_since(&self) -> ServiceTime {
        self.clock.now().before(self.settings.case_retention)
    }

    /// As precise as the store keeps it.
    fn wall(&self) -> SystemTime {
        time(micros(self.clock.wall()))
    }
}
