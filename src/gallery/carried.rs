//! What has begun to change a gallery is carried to its end, whether or not somebody still waits for it.
//!
//! A store does what it is asked for, also for a caller that has left. What follows from the change then has to be done
//! as well, the record of who made it above all. So both are done in one task, which the call awaits. The task keeps
//! what the call holds of the server until it ends: nobody has more of them under way than requests, also who leaves
//! each one.

use std::{any::Any, fmt, sync::Arc};

use tracing::Instrument;

use super::StoreError;

/// What a call holds of the server: given back when the call has ended, and all that it has begun to change.
#[derive(Clone)]
pub struct Lease {
    _held: Arc<dyn Any + Send + Sync>,
}

impl Lease {
    pub fn new(held: Arc<impl Any + Send + Sync>) -> Self {
        Self { _held: held }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease")
    }
}

/// Does `work`, a change and what follows from it, to its end: dropping this future ends the wait alone.
///
/// # Errors
/// [`StoreError::Closed`] where it broke off, as the service does.
pub async fn carried<T: Send + 'static>(
    lease: Lease,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, StoreError> {
    let task = async move {
        let done = work.await;
        drop(lease); // before whoever waits goes on
        done
    };
    tokio::spawn(task.in_current_span()).await.map_err(|_| StoreError::Closed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn who_leaves_ends_the_wait_and_not_the_work() {
        let held = Arc::new(());
        let (go, gone) = oneshot::channel::<()>();
        let (done, ended) = oneshot::channel();
        let work = async {
            gone.await.unwrap();
            done.send(()).unwrap();
        };
        let call = carried(Lease::new(Arc::clone(&held)), work);
        assert!(tokio::time::timeout(Duration::from_millis(20), call).await.is_err());
        assert_eq!(Arc::strong_count(&held), 2, "the work goes on, and keeps its lease");
        go.send(()).unwrap();
        ended.await.unwrap();
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_lease_is_given_back_before_the_answer() {
        let held = Arc::new(());
        assert_eq!(carried(Lease::new(Arc::clone(&held)), async { 7 }).await.unwrap(), 7);
        assert_eq!(Arc::strong_count(&held), 1);
        let broken = carried(Lease::new(Arc::clone(&held)), async { panic!("as the test wishes") });
        assert!(matches!(broken.await, Err(StoreError::Closed)));
        assert_eq!(Arc::strong_count(&held), 1, "a panic loses no lease");
    }
}
