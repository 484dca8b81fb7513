//! What each change does inside the writer's transaction.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    CaseError, CreateError, EnrolError, Enrolled, EraseError, Erased, Finding, Gallery, Outcome, Selector, SpendError,
    StoreError,
    batch::{Batch, Step},
    cases::Judged,
    spent,
    state::{Change, Row},
    store::{GalleryRow, micros, time},
    writer::{Finish, Prepared, Writer},
};
use crate::domain::{CaseId, GalleryName, Judgement, ModelDigest};

impl Writer {
    pub(super) fn create(
        &self,
        batch: &mut Batch,
        name: GalleryName,
        model: ModelDigest,
        dimension: usize,
    ) -> Step<Arc<Gallery>, CreateError> {
        let mut known = self.galleries.values().chain(&batch.created);
        if let Some(gallery) = known.find(|g| g.name == name) {
            return Ok(Ok(Arc::clone(gallery)));
        }
        let limit = self.settings.max_galleries;
        if self.galleries.len() + batch.created.len() >= limit {
            return Ok(Err(CreateError::TooMany { limit }));
        }
        let mut row = GalleryRow {
            key: 0,
            uid: *Uuid::new_v4().as_bytes(),
            name: name.as_str().into(),
            model: *model.as_bytes(),
            dimension,
            epoch: 0,
            created_at: self.wall(),
        };
        row.key = self.store.insert_gallery(&row)?;
        let gallery =
            Arc::new(Gallery::new(row, name, &self.root, self.queue.clone(), &self.settings, self.shared.clone()));
        batch.created.push(Arc::clone(&gallery));
        Ok(Ok(gallery))
    }

    pub(super) fn enrol(&self, batch: &mut Batch, key: i64, new: Prepared) -> Step<Enrolled, EnrolError> {
        let Some(touched) = batch.touch(&self.galleries, key) else { return Ok(Err(StoreError::Closed.into())) };
        if let Some(subject) = self.store.owner(key, new.id)? {
            return Ok(if subject == new.subject.as_str() {
                Ok(Enrolled { id: new.id, epoch: touched.epoch, repeated: true })
            } else {
                Err(EnrolError::Exists { id: new.id })
            });
        }
        let limit = self.settings.max_references;
        if touched.references >= limit {
            return Ok(Err(EnrolError::GalleryFull { limit }));
        }
        let limit = self.settings.max_references_per_subject;
        if self.store.count_of_subject(key, &new.subject)? >= limit {
            return Ok(Err(EnrolError::TooManyForSubject { limit }));
        }
        let enrolled_at = self.wall();
        let seq = self.store.insert_reference(key, new.id, &new.subject, &new.sealed, enrolled_at)?;
        touched.references += 1;
        touched.epoch += 1;
        let row = Row { id: new.id, subject: new.subject, enrolled_at };
        touched.changes.push(Change::Enrolled { seq, row, template: new.template });
        Ok(Ok(Enrolled { id: new.id, epoch: touched.epoch, repeated: false }))
    }

    pub(super) fn erase(&self, batch: &mut Batch, key: i64, selector: &Selector) -> Step<Erased, EraseError> {
        let Some(touched) = batch.touch(&self.galleries, key) else { return Ok(Err(StoreError::Closed.into())) };
        let gone = match selector {
            Selector::Subject(subject) => self.store.erase_subject(key, subject)?,
            Selector::Reference(id) => self.store.erase_reference(key, *id)?,
        };
        let references = gone.len();
        if references > 0 {
            touched.references = touched.references.saturating_sub(references);
            touched.epoch += 1;
            touched.erased = true;
            touched.changes.push(Change::Erased(gone));
        }
        Ok(Ok(Erased { references, epoch: touched.epoch }))
    }

    pub(super) fn finish(&self, batch: &mut Batch, key: i64, finish: &Finish) -> Step<(Outcome, bool), SpendError> {
        if let Some(outcome) = spent::outcome(&self.store.0, finish.nonce)? {
            return Ok(Ok((outcome, true)));
        }
        let now = self.shared.clock.now();
        if finish.expires.after(self.settings.receipt_grace) <= now {
            return Ok(Err(SpendError::Expired));
        }
        let Finding { case, epoch, newest, fnir } = &finish.finding;
        if let Some(case) = case {
            let Some(found) = self.store.still_there(key, &case.candidates, *newest)? else {
                return Ok(Err(SpendError::Moved));
            };
            if !self.store.insert_case(key, case, &found, now)? {
                return Ok(Err(SpendError::CaseExists { id: case.id }));
            }
        }
        let outcome = Outcome { case: case.as_ref().map(|case| case.id), epoch: *epoch, fnir: *fnir };
        self.store.spend(finish.nonce, finish.expires, &outcome)?;
        self.store.count("searches", 1)?;
        self.store.count("cases", i64::from(case.is_some()))?;
        batch.counted = true;
        Ok(Ok((outcome, false)))
    }

    pub(super) fn judge(&self, batch: &mut Batch, key: i64, id: CaseId, judged: &Judgement) -> Step<bool, CaseError> {
        let before = match self.store.judge(key, id, self.shared.cases_since(), judged)? {
            None => return Ok(Ok(false)),
            Some(Judged::Empty) => return Ok(Err(CaseError::Empty)),
            Some(Judged::Over(before)) => before,
        };
        if let Some(before) = before {
            self.store.count(&before, -1)?;
        }
        self.store.count(judged.verdict.as_str(), 1)?;
        batch.counted = true;
        Ok(Ok(true))
    }

    /// As precise as the store keeps it.
    fn wall(&self) -> std::time::SystemTime {
        time(micros(self.shared.clock.wall()))
    }
}
