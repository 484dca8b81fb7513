//! Two instances that are restarted in turn while clients go on: who tries again elsewhere when an instance is unavailable notices
//! nothing.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::time::sleep;
use tonic::{Code, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use vultus::rpc::pb::{self, Decision, match_service_client::MatchServiceClient};

use crate::{
    MACHINE,
    faces::PEOPLE,
    requests::{enrol, never_sent, of, verify},
    server::Server,
    set,
};

const GALLERY: &str = "subscribers";
const CALLERS: usize = 6;
/// Tries of one call, and the rest between two.
const TRIES: usize = 40;
const REST: Duration = Duration::from_millis(50);
/// The server's own, by default, and what it takes to end after it.
const GRACE: Duration = Duration::from_secs(25 + 2);

/// Where the instances are now, as clients would be told.
struct Instances(Mutex<[Channel; 2]>);

impl Instances {
    fn get(&self, instance: usize) -> Channel {
        self.0.lock().unwrap()[instance % 2].clone()
    }

    fn set(&self, instance: usize, channel: Channel) {
        self.0.lock().unwrap()[instance] = channel;
    }
}

#[derive(Default)]
struct Counts {
    over: AtomicBool,
    calls: AtomicUsize,
    retried: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

/// Enrolled, and serving.
async fn started(data: &Path) -> Server {
    let server = Server::start(data);
    let mut health = HealthClient::new(server.channel().await);
    let mut gallery = server.gallery().await;
    for (i, person) in PEOPLE.iter().enumerate() {
        let request = enrol(GALLERY, &format!("s{i}"), person.reference.clone());
        // After the first time everyone is there already.
        let request = pb::EnrolRequest { reference_id: format!("00000000-0000-4000-8000-{i:012}"), ..request };
        let enrolled = gallery.enrol(of("shop", request)).await;
        assert!(enrolled.as_ref().err().is_none_or(|status| status.code() == Code::AlreadyExists), "{enrolled:?}");
    }
    let serving = || HealthCheckRequest { service: String::new() };
    while health.check(serving()).await.unwrap().into_inner().status() != ServingStatus::Serving {
        sleep(REST).await;
    }
    server
}

fn is_unavailable(status: &Status) -> bool {
    status.code() == Code::Unavailable || never_sent(status)
}

/// One call, tried again at the other instance where one is unavailable.
async fn call(instances: &Instances, counts: &Counts, turn: usize) -> Result<(), Status> {
    let people = PEOPLE.len();
    let (probe, subject) = (turn % people, (turn + turn / people % 2) % people);
    let mut last = Status::ok("");
    for attempt in 0..TRIES {
        let mut matching = MatchServiceClient::new(instances.get(turn + attempt));
        let request = verify(GALLERY, &format!("s{subject}"), PEOPLE[probe].probe.clone());
        match matching.verify(of("shop", request)).await {
            Ok(answer) => {
                let decision = answer.into_inner().decision();
                assert_eq!(decision == Decision::Match, probe == subject, "{decision:?} for {probe} as {subject}");
                counts.retried.fetch_add(usize::from(attempt > 0), Relaxed);
                return Ok(());
            }
            Err(status) if is_unavailable(&status) => last = status,
            Err(status) => return Err(status),
        }
        if attempt > 0 {
            sleep(REST).await;
        }
    }
    Err(last)
}

/// `VULTUS_RESTARTS` of them.
#[tokio::test(flavor = "multi_thread")]
async fn rolling_restarts_fail_no_call() {
    let _alone = MACHINE.lock().await;
    let restarts = set("VULTUS_RESTARTS", 4) as usize;
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut servers = [started(dirs[0].path()).await, started(dirs[1].path()).await];
    let channels = [servers[0].channel().await, servers[1].channel().await];
    let (instances, counts) = (Arc::new(Instances(Mutex::new(channels))), Arc::new(Counts::default()));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (instances, counts) = (Arc::clone(&instances), Arc::clone(&counts));
            tokio::spawn(async move {
                while !counts.over.load(Relaxed) {
                    let turn = counts.calls.fetch_add(1, Relaxed);
                    if let Err(status) = call(&instances, &counts, turn).await {
                        counts.failed.lock().unwrap().push(format!("{:?}: {}", status.code(), status.message()));
                    }
                }
            })
        })
        .collect();

    let mut longest = Duration::ZERO;
    for restart in 0..restarts {
        let at = restart % 2;
        sleep(Duration::from_millis(500)).await;
        let [first, second] = servers;
        let (stopping, other) = if at == 0 { (first, second) } else { (second, first) };
        let told = Instant::now();
        let status = tokio::task::spawn_blocking(move || stopping.terminate()).await.unwrap();
        longest = longest.max(told.elapsed());
        assert_eq!(status.code(), Some(0), "restart {restart}");
        assert!(told.elapsed() < GRACE, "restart {restart}: {:?}", told.elapsed());
        let again = started(dirs[at].path()).await;
        instances.set(at, again.channel().await);
        servers = if at == 0 { [again, other] } else { [other, again] };
    }
    counts.over.store(true, Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    let failed = counts.failed.lock().unwrap();
    println!(
        "{restarts} restarts: {} calls, {} of them tried again, {} failed; the longest end took {longest:?}",
        counts.calls.load(Relaxed),
        counts.retried.load(Relaxed),
        failed.len()
    );
    assert!(counts.retried.load(Relaxed) > 0, "no call met a restart");
    assert!(failed.is_empty(), "{failed:?}");
}
