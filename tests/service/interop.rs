//! Clients of other makes: reflection as old and new ones ask for it, and compressed requests.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tonic::{Code, codec::CompressionEncoding::Gzip, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
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

/// The files that answer a question of reflection.
async fn asked(
    channel: Channel,
    question: v1::server_reflection_request::MessageRequest,
) -> Result<Vec<FileDescriptorProto>, String> {
    let request = v1::ServerReflectionRequest { host: String::new(), message_request: Some(question) };
    // Compressed, as some clients send all that they send.
    let mut client = v1::server_reflection_client::ServerReflectionClient::new(channel).send_compressed(Gzip);
    let mut answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap().into_inner();
    let answer = answers.next().await.unwrap().map_err(|status| status.to_string())?;
    match answer.message_response.unwrap() {
        v1::server_reflection_response::MessageResponse::FileDescriptorResponse(files) => {
            let decode = |file: &Vec<u8>| FileDescriptorProto::decode(file.as_slice()).unwrap();
            Ok(files.file_descriptor_proto.iter().map(decode).collect())
        }
        other => Err(format!("{other:?}")),
    }
}

/// As clients such as grpcurl load what they are to print.
#[tokio::test]
async fn every_file_is_found_by_the_name_that_others_import_it_by() {
    use v1::server_reflection_request::MessageRequest::{FileByFilename, FileContainingSymbol};
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let channel = server.channel().await;
    let mut wanted: Vec<String> = vec!["google/rpc/error_details.proto".into()];
    for symbol in
        SYMBOLS.into_iter().chain(["vultus.v1.GalleryService", "vultus.v1.ReviewService", "google.rpc.Status"])
    {
        let files = asked(channel.clone(), FileContainingSymbol(symbol.into())).await.unwrap();
        wanted.extend(files.into_iter().map(|file| file.name().to_owned()));
    }
    let mut loaded: BTreeMap<String, FileDescriptorProto> = BTreeMap::new();
    while let Some(name) = wanted.pop() {
        if loaded.contains_key(&name) {
            continue;
        }
        let files = asked(channel.clone(), FileByFilename(name.clone())).await;
        let file = files.unwrap_or_else(|e| panic!("{name}: {e}")).remove(0);
        assert_eq!(file.name(), name);
        wanted.extend(file.dependency.iter().cloned());
        loaded.insert(name, file);
    }
    // A pool refuses what stands in two of its files.
    let mut symbols = BTreeSet::new();
    for file in loaded.values() {
        for DescriptorProto { name, .. } in &file.message_type {
            let symbol = format!("{}.{}", file.package(), name.as_deref().unwrap());
            assert!(symbols.insert(symbol.clone()), "{symbol} is there twice: {:?}", loaded.keys());
        }
    }
    assert!(symbols.contains("google.rpc.ErrorInfo") && symbols.contains("google.rpc.Status"), "{symbols:?}");
    assert!(loaded.contains_key("google/rpc/status.proto"), "{:?}", loaded.keys());
    let gone = asked(channel.clone(), FileByFilename("status.proto".into())).await;
    assert!(gone.is_err(), "a second name for google/rpc/status.proto");

    let mut health = HealthClient::new(channel).send_compressed(Gzip);
    health.check(HealthCheckRequest::default()).await.unwrap();
}

/// What comes out of an item is not known before it is unpacked: a stream in gzip holds the largest message until it ends.
#[tokio::test]
async fn a_compressed_stream_is_counted_before_its_items_are_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &format!("{CONFIG}\n[limits]\nclient_bytes_in_flight = 15000000"));
    let gallery = server.gallery().await.send_compressed(Gzip);
    let mut open = Vec::new();
    for subject in ["alice", "bella"] {
        let (items, received) = tokio::sync::mpsc::channel(1);
        let enrolment = Some(enrol(GALLERY, subject, PEOPLE[0].reference.clone()));
        items.send(pb::EnrolStreamRequest { item: 1, enrolment }).await.unwrap();
        let mut answers =
            gallery.clone().enrol_stream(of("shop", ReceiverStream::new(received))).await.unwrap().into_inner();
        let answer = answers.next().await.unwrap().unwrap();
        assert!(matches!(answer.result, Some(pb::enrol_stream_response::Result::Enrolled(_))), "{answer:?}");
        open.push((items, answers));
    }
    let third = gallery.clone().enrol_stream(of("shop", tokio_stream::empty())).await;
    assert_eq!(refusal(third), (Code::ResourceExhausted, "CLIENT_OVER_LIMIT".to_owned()));
    drop(open.pop());
    // Its place is free again, once the server has seen that it is.
    let mut tries = 0;
    while let Err(status) = gallery.clone().enrol_stream(of("shop", tokio_stream::empty())).await {
        tries += 1;
        assert!(tries < 100, "{status:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_alike_with_and_without_compression() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let (plain, packed) = (server.matching().await, server.matching().await.send_compressed(Gzip));
    for mut matching in [plain, packed] {
        let huge = pb::VerifyRequest { probe: raw(2000, 2000, vec![7; 12_000_000]), ..verify(GALLERY, "alice", None) };
        let refused = matching.verify(of("shop", huge)).await;
        assert_eq!(refusal(refused), (Code::OutOfRange, "MESSAGE_TOO_LARGE".to_owned()));
    }
    let (plain, packed) = (server.gallery().await, server.gallery().await.send_compressed(Gzip));
    for mut gallery in [plain, packed] {
        let enrolment = Some(enrol(GALLERY, "alice", raw(2000, 2000, vec![7; 12_000_000])));
        let items = tokio_stream::once(pb::EnrolStreamRequest { item: 1, enrolment });
        let mut answers = gallery.enrol_stream(of("shop", items)).await.unwrap().into_inner();
        let refused = answers.next().await.unwrap().map(tonic::Response::new);
        assert_eq!(refusal(refused), (Code::OutOfRange, "MESSAGE_TOO_LARGE".to_owned()));
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
    let refused = matching.clone().verify(of("shop", huge)).await;
    assert_eq!(refusal(refused), (Code::OutOfRange, "MESSAGE_TOO_LARGE".to_owned()));
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
