//! No work for those who have left: what clients cancel leaves every queue.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use vultus::rpc::pb;

use crate::{
    faces::PEOPLE,
    requests::{enrol, of, verify_inline},
    server::{CONFIG, Server},
};

const ROUNDS: usize = 5;
const CALLS: usize = 120;
/// Images in a batch, by the configuration below.
const BATCH: f64 = 2.0;
/// What cancellations need to arrive.
const ARRIVAL: Duration = Duration::from_millis(150);

fn in_small_batches(dir: &tempfile::TempDir) -> Server {
    Server::start_with(dir.path(), &format!("{CONFIG}\n[limits]\nbatch_images = {BATCH}"))
}

/// Images that the networks have taken up, all roles together.
fn images(server: &Server) -> f64 {
    let scrape = server.scrape();
    let sums = scrape.lines().filter_map(|line| line.strip_prefix("vultus_batch_images_sum{role=\"")?.split_once(' '));
    sums.map(|(_, sum)| sum.parse::<f64>().unwrap()).sum()
}

/// Images that are run later than what was cancelled just now needs to be known as that.
async fn run_later(server: &Server) -> f64 {
    tokio::time::sleep(ARRIVAL).await;
    let before = images(server);
    tokio::time::sleep(Duration::from_millis(700)).await;
    images(server) - before
}

/// Of four images a face pair. Beyond the batch that each of two cores runs: a hundredth.
fn assert_few(wasted: f64, rounds: usize, cancelled: usize) {
    let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get());
    let most = (rounds * cores) as f64 * BATCH + 0.01 * 4.0 * cancelled as f64;
    assert!(wasted <= most, "{wasted} images for {cancelled} faces that nobody waited for, expected at most {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_are_not_worked_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = in_small_batches(&dir);
    let matching = server.matching().await;
    let (mut wasted, mut cancelled) = (0.0, 0);
    for _ in 0..ROUNDS {
        let mut calls = JoinSet::new();
        for i in 0..CALLS {
            let mut matching = matching.clone();
            let request = of("shop", verify_inline(PEOPLE[i % 3].probe.clone(), PEOPLE[i % 3].reference.clone()));
            calls.spawn(async move { matching.verify(request).await.is_ok() });
        }
        // Until some are answered: then the queues are full, and a batch runs.
        assert!(calls.join_next().await.unwrap().unwrap());
        cancelled += calls.len();
        calls.shutdown().await;
        wasted += run_later(&server).await;
    }
    println!("{cancelled} calls cancelled; {wasted} images were run for them later than {ARRIVAL:?} after");
    assert_few(wasted, ROUNDS, cancelled);
    let scrape = server.scrape();
    assert!(scrape.contains("vultus_dropped_jobs_total{lane=\"verification\",reason=\"gone\""), "{scrape}");
    assert!(scrape.contains("vultus_requests_in_flight{lane=\"verification\"} 0"), "{scrape}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nor_is_a_stream_that_is_cancelled() {
    const ITEMS: u64 = 60;
    let dir = tempfile::tempdir().unwrap();
    let server = in_small_batches(&dir);
    let mut gallery = server.gallery().await;
    let (items, sent) = tokio::sync::mpsc::channel(ITEMS as usize);
    for item in 0..ITEMS {
        let enrolment = Some(enrol("subscribers", &format!("s{item}"), PEOPLE[0].reference.clone()));
        items.send(pb::EnrolStreamRequest { item, enrolment }).await.unwrap();
    }
    let statuses = gallery.enrol_stream(of("shop", ReceiverStream::new(sent))).await.unwrap();
    let mut statuses = statuses.into_inner();
    assert!(statuses.next().await.unwrap().is_ok());
    drop((items, statuses));
    // A stream is served when a core is idle, and so are its cancellation and its items.
    let started = Instant::now();
    while !server.scrape().contains(r#"vultus_answers_total{code="CANCELLED",rpc="EnrolStream"}"#) {
        assert!(started.elapsed() < Duration::from_secs(10), "{}", server.scrape());
    }
    let known_after = started.elapsed();
    let wasted = run_later(&server).await;
    println!(
        "{ITEMS} items of a cancelled stream: {known_after:?} until that was known, and {wasted} images {ARRIVAL:?} later"
    );
    assert_few(wasted, 1, ITEMS as usize);
}
