//! The null model measures a transport, and can verify nobody.

use std::process::Command;

use tonic::Code;
use vultus::rpc::pb::{Decision, DecisionReason};

use crate::{
    faces::PEOPLE,
    requests::{encoded, enrol, identify, of, refusal, verify},
    server::{CONFIG, Server, program},
};

#[tokio::test]
async fn it_answers_non_match_to_everyone() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_as("vultus-load", &["null-server"], dir.path(), CONFIG);
    let (mut matching, mut gallery) = (server.matching().await, server.gallery().await);
    let person = &PEOPLE[0];
    gallery.enrol(of("shop", enrol("subscribers", "s0", person.reference.clone()))).await.unwrap();
    for probe in [person.reference.clone(), person.probe.clone(), encoded(vec![7; 20_000])] {
        let answer = matching.verify(of("shop", verify("subscribers", "s0", probe))).await.unwrap().into_inner();
        assert_eq!((answer.decision(), answer.reason()), (Decision::NonMatch, DecisionReason::ScoreBelowThreshold));
        assert!(answer.receipt.is_empty() && answer.receipt_expires_at.is_none() && answer.score.is_none());
    }
    let forged = matching.identify(of("shop", identify("subscribers", vec![1; 64]))).await;
    assert_eq!(refusal(forged).1, "RECEIPT_NOT_AUTHENTIC");
    assert!(!dir.path().join("gallery").exists(), "the data directory that it was given is not its own");
}

#[tokio::test]
async fn it_checks_what_a_server_checks() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_as("vultus-load", &["null-server"], dir.path(), CONFIG);
    let mut matching = server.matching().await;
    let good = || verify("subscribers", "s0", encoded(vec![7; 100]));
    let mut unexplained = good();
    unexplained.context = None;
    let mut faceless = good();
    faceless.probe = None;
    for (client, request, code, reason) in [
        ("shop", unexplained, Code::InvalidArgument, "FIELD_INVALID"),
        ("shop", faceless, Code::InvalidArgument, "FIELD_INVALID"),
        ("nobody", good(), Code::PermissionDenied, "NOT_PERMITTED"),
        ("stranger", good(), Code::PermissionDenied, "NOT_PERMITTED"),
    ] {
        assert_eq!(refusal(matching.verify(of(client, request)).await), (code, reason.to_owned()));
    }
}

#[test]
fn no_setting_of_a_server_leads_there() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    for text in [
        "null_model = true",
        "[server]\nnull_model = true",
        "[limits]\nnull_model = true",
        "[policy]\nnull_model = true",
    ] {
        std::fs::write(&config, text).unwrap();
        let served =
            Command::new(program("vultus")).args(["serve", "--insecure", "--config"]).arg(&config).output().unwrap();
        assert_eq!(served.status.code(), Some(1), "{text}");
        assert!(String::from_utf8_lossy(&served.stderr).contains("null_model"), "{served:?}");
    }
    let served = Command::new(program("vultus")).args(["serve", "--insecure", "--null-model"]).output().unwrap();
    assert_eq!(served.status.code(), Some(2));
}
