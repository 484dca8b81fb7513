//! Clients of other makes: reflection as old and new ones ask for it, and compressed requests.

use tokio_stream::StreamExt;
use tonic::{Code, codec::CompressionEncoding::Gzip};
use tonic_reflection::pb::{v1, v1alpha};
use vultus::rpc::pb::{self, Decision};

use crate::{
    faces::PEOPLE,
    requests::{enrol, of, raw, refusal, verify},
    server::{CONFIG, Server},
};

const GALLERY: &str = "subscribers";
/// What grpcurl looks up to print the details of an error.
const SYMBOLS: [&str; 3] = ["vultus.v1.MatchService", "google.rpc.ErrorInfo", "google.rpc.BadRequest"];

#[tokio::test]
async fn reflection_answers_old_clients_and_new_ones() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    for symbol in SYMBOLS {
        let asked = v1::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(v1::server_reflection_request::MessageRequest::FileContainingSymbol(symbol.into())),
        };
        let mut client = v1::server_reflection_client::ServerReflectionClient::new(server.channel().await);
        let mut answers = client.server_reflection_info(tokio_stream::once(asked)).await.unwrap().into_inner();
        let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
        let found = matches!(answer, v1::server_reflection_response::MessageResponse::FileDescriptorResponse(_));
        assert!(found, "{symbol}: {answer:?}");

        let asked = v1alpha::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(v1alpha::server_reflection_request::MessageRequest::FileContainingSymbol(
                symbol.into(),
            )),
        };
        let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(server.channel().await);
        let mut answers = client.server_reflection_info(tokio_stream::once(asked)).await.unwrap().into_inner();
        let answer = answers.next().await.unwrap().unwrap().message_response.unwrap();
        let found = matches!(answer, v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse(_));
        assert!(found, "{symbol}: {answer:?}");
    }
}

#[tokio::test]
async fn compressed_requests_are_read_within_the_limits() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &format!("{CONFIG}\n[limits]\nclient_bytes_in_flight = 11000000"));
    server.gallery().await.enrol(of("shop", enrol(GALLERY, "alice", PEOPLE[0].reference.clone()))).await.unwrap();
    let matching = server.matching().await.send_compressed(Gzip);
    let request = || of("shop", verify(GALLERY, "alice", PEOPLE[0].probe.clone()));
    let answer = matching.clone().verify(request()).await.unwrap().into_inner();
    assert_eq!(answer.decision(), Decision::Match);
    // A picture of one colour, 12 MB of it, in a few kilobytes.
    let huge = pb::VerifyRequest { probe: raw(2000, 2000, vec![7; 12_000_000]), ..verify(GALLERY, "alice", None) };
    let refused = matching.clone().verify(of("shop", huge)).await.unwrap_err();
    assert!(matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted), "{refused:?}");
    // What comes out is not known before it is there: each counts as the largest, so that two fit here.
    let flood: Vec<_> = (0..24)
        .map(|_| {
            let mut matching = matching.clone();
            let request = request();
            tokio::spawn(async move { matching.verify(request).await })
        })
        .collect();
    let mut over = 0;
    for call in flood {
        match call.await.unwrap() {
            Ok(answer) => assert_eq!(answer.into_inner().decision(), Decision::Match),
            refused => {
                assert_eq!(refusal(refused), (Code::ResourceExhausted, "CLIENT_OVER_LIMIT".to_owned()));
                over += 1;
            }
        }
    }
    assert!(over > 0, "compressed requests are not counted by what comes out of them");
}
