//! A client that is refused again and again keeps its connection.

use tonic::Code;

use crate::{
    MACHINE,
    requests::{encoded, of, refusal, verify},
    server::{CONFIG, Server},
};

const CALLERS: usize = 64;
const CALLS: usize = 200;

/// Messages of a client that is refused are still on their way when it is told so: no error of the client's, however often.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_end_no_connection() {
    let _alone = MACHINE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let config = format!("{CONFIG}\n[limits]\nverifications_in_flight = 1\nerror_resets = 8\n");
    let server = Server::start_as("vultus-load", &["null-server"], dir.path(), &config);
    let matching = server.matching().await;
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let mut matching = matching.clone();
            tokio::spawn(async move {
                let mut refused = 0;
                for _ in 0..CALLS {
                    let request = verify("subscribers", "s0", encoded(vec![7; 100_000]));
                    match matching.verify(of("shop", request)).await {
                        Ok(_) => {}
                        Err(status) => {
                            let why = refusal::<()>(Err(status));
                            assert_eq!(why, (Code::ResourceExhausted, "OVERLOADED".to_owned()));
                            refused += 1;
                        }
                    }
                }
                refused
            })
        })
        .collect();
    let mut refused = 0;
    for caller in callers {
        refused += caller.await.unwrap();
    }
    println!("{refused} of {} calls on one connection were refused", CALLERS * CALLS);
    assert!(refused > CALLERS * CALLS / 10, "{refused}");
}
