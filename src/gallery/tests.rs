//! What tests of other modules ask of a gallery.

use super::Gallery;

impl Gallery {
    /// Lets the store do `work` between two changes.
    pub(crate) async fn in_turn(&self, work: impl FnOnce() + Send + 'static) {
        self.store().unwrap().in_turn(Box::new(work)).await;
    }
}
