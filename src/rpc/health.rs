//! Health is earned, and lost: SERVING once every network has agreed with the reference executor on golden faces, and until a canary
//! is answered wrongly or not at all, the device or the store has failed, or the server is told to stop.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};
use tonic_health::server::HealthReporter;

use super::Core;
use crate::{
    pipeline::{CanaryError, Condition, DeviceError},
    telemetry::Metrics,
};

/// How often device and store are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// So many canaries in a row that found no room, or waited too long, are no matter of load any more.
const NOT_RUN: u32 = 3;

/// Until the server is told to stop, or serves no more.
pub async fn watch(core: Arc<Core>, reporter: HealthReporter, mut stopped: watch::Receiver<bool>) {
    let mut condition = core.pipeline.condition();
    report(&reporter, false).await;
    if !passes(&core, &mut stopped).await {
        return;
    }
    report(&reporter, true).await;
    let mut not_run = 0;
    let mut next_canary = Instant::now() + core.limits.canary_interval;
    loop {
        let changed = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => break,
            Ok(()) = condition.changed() => true,
            () = tokio::time::sleep(INTERVAL.min(core.limits.canary_interval)) => false,
        };
        if changed {
            // Lost: what takes its place must earn it as the first did.
            report(&reporter, false).await;
            let replaced = condition.wait_for(|condition| *condition != Condition::Replacing).await;
            let replaced = replaced.is_ok_and(|condition| *condition == Condition::Running);
            if !replaced || !passes(&core, &mut stopped).await {
                break;
            }
            report(&reporter, true).await;
            continue;
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
        let outcome = outcome(&canary);
        Metrics::get().canaries_total.with_label_values(&[outcome]).inc();
        not_run = if outcome == "not_run" { not_run + 1 } else { 0 };
        match canary {
            Ok(()) => {}
            // Its condition says so, too.
            Err(CanaryError::NotRun(DeviceError::Lost(_))) => {}
            Err(error) if outcome == "not_run" && not_run < NOT_RUN => tracing::warn!(%error, "a canary did not run"),
            Err(error) => {
                tracing::error!(%error, "the device is not fit to serve; not serving");
                break;
            }
        }
    }
    report(&reporter, false).await;
}

/// Whether the networks agree with the reference executor; false as well where the server is told to stop meanwhile.
async fn passes(core: &Core, stopped: &mut watch::Receiver<bool>) -> bool {
    loop {
        let tested = tokio::select! {
            tested = core.pipeline.run_canary() => tested,
            _ = stopped.wait_for(|stop| *stop) => return false,
        };
        match tested {
            Ok(()) => break,
            // Those who did not wait for SERVING may have filled the queue. A lost device may be replaced; where it is not, the server stops.
            Err(CanaryError::NotRun(error @ (DeviceError::Full { .. } | DeviceError::Late | DeviceError::Lost(_)))) => {
                tracing::warn!(%error, "the self-test did not run; trying again");
                tokio::time::sleep(INTERVAL).await;
            }
            Err(error) => {
                tracing::error!(%error, "self-test failed; not serving");
                return false;
            }
        }
    }
    tracing::info!("self-test passed; serving");
    true
}

/// The word for it in metrics.
fn outcome(canary: &Result<(), CanaryError>) -> &'static str {
    match canary {
        Ok(()) => "good",
        Err(CanaryError::NotRun(DeviceError::Full { .. } | DeviceError::Late)) => "not_run",
        Err(CanaryError::NotRun(DeviceError::Failed(_) | DeviceError::Lost(_) | DeviceError::Stopped)) => "failed",
        Err(CanaryError::Hung { .. }) => "hung",
        Err(CanaryError::Wrong { .. } | CanaryError::Pair) => "wrong",
    }
}

async fn report(reporter: &HealthReporter, serving: bool) {
    let status = if serving { tonic_health::ServingStatus::Serving } else { tonic_health::ServingStatus::NotServing };
    for service in ["", "vultus.v1.MatchService", "vultus.v1.GalleryService", "vultus.v1.ReviewService"] {
        reporter.set_service_status(service, status).await;
    }
    Metrics::get().serving.set(i64::from(serving));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_load_excuses_a_canary() {
        let (wrong, hung) = (CanaryError::Pair, CanaryError::Hung { waited: INTERVAL });
        let outcomes = [
            Ok(()),
            Err(DeviceError::Full { limit: 1 }.into()),
            Err(DeviceError::Late.into()),
            Err(DeviceError::Failed(String::new()).into()),
            Err(DeviceError::Stopped.into()),
            Err(hung),
            Err(wrong),
        ];
        assert_eq!(
            outcomes.each_ref().map(outcome),
            ["good", "not_run", "not_run", "failed", "failed", "hung", "wrong"]
        );
    }
}
