//! No work for those who have left: what clients cancel leaves every queue.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::{
    faces::PEOPLE,
    requests::{of, verify_inline},
    server::{CONFIG, Server},
};

const ROUNDS: usize = 5;
const CALLS: usize = 120;
/// Images in a batch, by the configuration below.
const BATCH: f64 = 8.0;

/// Images that the networks have taken up, all roles together.
fn images(server: &Server) -> f64 {
    let scrape = server.scrape();
    let sums = scrape.lines().filter_map(|line| line.strip_prefix("vultus_batch_images_sum{role=\"")?.split_once(' '));
    sums.map(|(_, sum)| sum.parse::<f64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_leave_are_not_worked_for() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &format!("{CONFIG}\n[limits]\nbatch_images = {BATCH}"));
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
        // What the cancellations need to arrive.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let before = images(&server);
        tokio::time::sleep(Duration::from_millis(700)).await;
        wasted += images(&server) - before;
    }
    println!("{cancelled} calls cancelled; {wasted} images were run for them later than 50 ms after");
    // Four images a call. Beyond the batch that runs, and one that was being taken: a hundredth.
    let most = ROUNDS as f64 * 2.0 * BATCH + 0.01 * 4.0 * cancelled as f64;
    assert!(wasted <= most, "{wasted} images for {cancelled} calls that nobody waited for");
    let scrape = server.scrape();
    assert!(scrape.contains("vultus_dropped_jobs_total{lane=\"verification\",reason=\"gone\""), "{scrape}");
    assert!(scrape.contains("vultus_requests_in_flight{lane=\"verification\"} 0"), "{scrape}");
}
