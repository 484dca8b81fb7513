//! Health is earned, and lost: SERVING once every network has agreed with the reference executor on golden faces, and until a canary
//! is answered wrongly, the device or the store has failed, or the server is told to stop.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tonic_health::server::HealthReporter;

use super::Core;
use crate::{pipeline::CanaryError, telemetry::Metrics};

/// How often device and store are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Until the server is told to stop, or serves no more.
pub async fn watch(core: Arc<Core>, reporter: HealthReporter, mut stopped: watch::Receiver<bool>) {
    report(&reporter, false).await;
    loop {
        let tested = tokio::select! {
            tested = core.pipeline.run_canary() => tested,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        match tested {
            Ok(()) => break,
            // Those who did not wait for SERVING may have filled the queue.
            Err(CanaryError::NotRun(error)) if core.pipeline.is_running() => {
                tracing::warn!(%error, "the self-test did not run; trying again");
                tokio::time::sleep(INTERVAL).await;
            }
            Err(error) => {
                tracing::error!(%error, "self-test failed; not serving");
                return;
            }
        }
    }
    tracing::info!("self-test passed; serving");
    report(&reporter, true).await;
    let mut next_canary = Instant::now() + core.limits.canary_interval;
    loop {
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep(INTERVAL.min(core.limits.canary_interval)) => {}
        }
        Metrics::get().references.set(super::gauge(core.access.references()));
        if core.access.store_failed() {
            tracing::error!("the store has failed; not serving");
            break;
        }
        if !core.pipeline.is_running() {
            tracing::error!("the device has stopped; not serving");
            break;
        }
        if Instant::now() < next_canary {
            continue;
        }
        next_canary = Instant::now() + core.limits.canary_interval;
        let canary = tokio::select! {
            canary = core.pipeline.run_canary() => canary,
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        match canary {
            Ok(()) => Metrics::get().canaries_total.with_label_values(&["good"]).inc(),
            // No room for it is a matter of load, and told by other metrics.
            Err(CanaryError::NotRun(error)) => {
                Metrics::get().canaries_total.with_label_values(&["not_run"]).inc();
                tracing::warn!(%error, "a canary did not run");
            }
            Err(error @ (CanaryError::Wrong { .. } | CanaryError::Pair)) => {
                Metrics::get().canaries_total.with_label_values(&["wrong"]).inc();
                tracing::error!(%error, "a canary was answered wrongly; not serving");
                break;
            }
        }
    }
    report(&reporter, false).await;
}

async fn report(reporter: &HealthReporter, serving: bool) {
    let status = if serving { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
    for service in ["", "vultus.v1.MatchService", "vultus.v1.GalleryService", "vultus.v1.ReviewService"] {
        reporter.set_service_status(service, status).await;
    }
    Metrics::get().serving.set(i64::from(serving));
}
