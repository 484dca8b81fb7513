//! What tests of other modules ask of a gallery.

use super::{Gallery, Op};

impl Gallery {
    /// Lets the writer do `work` in its turn.
    pub(crate) async fn in_turn(&self, work: impl FnOnce() + Send + 'static) {
        let queue = self.writer.upgrade().unwrap();
        queue.send(Op::Call(Box::new(work))).await.unwrap_or_else(|_| panic!("the writer is there"));
    }
}
