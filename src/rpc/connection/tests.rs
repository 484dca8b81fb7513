//! Connections from end to end: identities of several kinds, over [`Transport`], with a client of HTTP/2.

use std::{
    convert::Infallible,
    future::pending,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use tonic::{
    body::Body,
    codegen::{
        BoxFuture, Bytes,
        http::{self, HeaderMap},
    },
};

use super::{
    Answers, Conduct, Connection, Identities, Patience, Runtimes, TakenAtItsWord, Transport, accept, client,
    identity::{ByteStream, Decided, Deciding, Identity},
};
use crate::{
    domain::{ClientId, Lane},
    rpc::{Limits, error::Error},
};

/// Longer than anything here takes, and shorter than the waits that would come in its stead.
const SOON: Duration = Duration::from_secs(20);

/// The client says its name, the server that it has heard it, and from then on each byte is masked, as by encryption.
#[derive(Debug)]
struct Handshake;

const HEARD: u8 = 7;

impl Identities for Handshake {
    fn of(&self, mut connection: Connection) -> Deciding<'_> {
        Box::pin(async move {
            let mut name = vec![0; connection.read_u8().await?.into()];
            connection.read_exact(&mut name).await?;
            let shown = match String::from_utf8(name) {
                Ok(name) if name.is_empty() => Shown(None),
                Ok(name) => Shown(Some(ClientId::new(&name).map_err(io::Error::other)?)),
                Err(fault) => return Err(io::Error::other(fault)),
            };
            connection.write_u8(HEARD).await?;
            let decided: Decided = (Arc::new(shown), Box::new(Masked(connection)));
            Ok(decided)
        })
    }
}

/// What a handshake has shown.
#[derive(Debug)]
struct Shown(Option<ClientId>);

impl Identity for Shown {
    fn client(&self, _: &HeaderMap) -> Result<ClientId, Error> {
        self.0.clone().ok_or(Error::Unauthenticated { expected: "a handshake with a name" })
    }
}

struct Masked<S>(S);

const MASK: u8 = 0x5a;

impl<S: AsyncRead + Unpin> AsyncRead for Masked<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.0).poll_read(context, buffer);
        buffer.filled_mut()[before..].iter_mut().for_each(|byte| *byte ^= MASK);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Masked<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let masked: Vec<u8> = bytes.iter().map(|byte| byte ^ MASK).collect();
        Pin::new(&mut self.0).poll_write(context, &masked)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Waits for the first connection's name from somebody who never answers, and takes all others at their word.
#[derive(Debug, Default)]
struct AsksElsewhere(AtomicBool);

impl Identities for AsksElsewhere {
    fn of(&self, connection: Connection) -> Deciding<'_> {
        if self.0.swap(true, Ordering::Relaxed) {
            return TakenAtItsWord.of(connection);
        }
        Box::pin(async move {
            let _held = connection;
            pending().await
        })
    }
}

/// Answers with the name of the client, and at which priority its connection is served. All but `/verify` is bulk.
struct Names;

impl Answers for Names {
    fn answer(&self, request: http::Request<Body>) -> BoxFuture<http::Response<Body>, Infallible> {
        let is_urgent = request.uri().path() == "/verify";
        let lane = if is_urgent { Lane::Verification } else { Lane::Identification };
        request.extensions().get::<Conduct>().unwrap().note_request(lane, false);
        let name = client(&request).map_or_else(|error| error.to_string(), |client| client.to_string());
        let served = if thread::current().name() == Some("background") { "when idle" } else { "usual" };
        let answer = http::Response::builder().header("is", name).header("served", served).body(Body::empty());
        Box::pin(async move { Ok(answer.unwrap()) })
    }
}

struct Server {
    address: SocketAddr,
    _stop: watch::Sender<bool>,
}

async fn serve(identities: impl Identities + 'static, limits: Limits) -> Server {
    let (stop, stopped) = watch::channel(false);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let transport = Transport::new(&limits, Runtimes::start().unwrap(), Arc::new(identities), stopped);
    tokio::spawn(transport.serve(accept(listener, limits.connections, Patience::of(&limits)), Arc::new(Names)));
    Server { address, _stop: stop }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection over which the client has shown its name.
    async fn shake(&self, name: &str) -> io::Result<Masked<TcpStream>> {
        let mut stream = self.connect().await;
        stream.write_u8(name.len().try_into().unwrap()).await?;
        stream.write_all(name.as_bytes()).await?;
        assert_eq!(stream.read_u8().await?, HEARD);
        Ok(Masked(stream))
    }
}

struct Client(h2::client::SendRequest<Bytes>);

impl Client {
    async fn over(stream: impl ByteStream + 'static) -> Self {
        let (requests, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self(requests)
    }

    /// Whose the request was, which says that it is of `name`; and how it was served.
    async fn ask(&mut self, path: &str, name: &str) -> [String; 2] {
        let request = http::Request::get(format!("http://here{path}")).header("vultus-client", name).body(()).unwrap();
        let mut requests = self.0.clone().ready().await.unwrap();
        let answer = requests.send_request(request, true).unwrap().0.await.unwrap();
        ["is", "served"].map(|header| answer.headers()[header].to_str().unwrap().to_owned())
    }

    async fn whose(&mut self, name: &str) -> String {
        let [is, _] = self.ask("/verify", name).await;
        is
    }
}

#[tokio::test]
async fn who_is_taken_at_its_word_may_change_it() {
    let server = serve(TakenAtItsWord, Limits::default()).await;
    let mut client = Client::over(server.connect().await).await;
    assert_eq!([client.whose("shop").await, client.whose("kiosk").await], ["shop", "kiosk"]);
}

#[tokio::test]
async fn what_a_handshake_has_shown_holds_for_all_requests_over_its_stream() {
    let server = serve(Handshake, Limits::default()).await;
    let mut kiosk = Client::over(server.shake("kiosk").await.unwrap()).await;
    assert_eq!([kiosk.whose("shop").await, kiosk.whose("kiosk").await], ["kiosk", "kiosk"], "no header is asked");
    let mut nobody = Client::over(server.shake("").await.unwrap()).await;
    assert_eq!(nobody.whose("shop").await, "expected a handshake with a name", "and no header is named");
    assert!(server.shake("a shop").await.is_err(), "a handshake that fails ends the connection");
}

/// One place, and little time to greet.
fn narrow() -> Limits {
    Limits { connections: 1, handshake_timeout: Duration::from_millis(500), ..Limits::default() }
}

#[tokio::test]
async fn who_ends_no_handshake_in_time_gives_the_place_back() {
    let server = serve(Handshake, narrow()).await;
    for begun in [&[][..], &[5], b"\x05kios"] {
        let mut slow = server.connect().await;
        slow.write_all(begun).await.unwrap();
        let next = async { Client::over(server.shake("kiosk").await.unwrap()).await.whose("shop").await };
        assert_eq!(timeout(SOON, next).await.unwrap(), "kiosk", "after {begun:?}");
        let ended = timeout(SOON, slow.read_u8()).await.unwrap();
        assert!(ended.is_err(), "nothing is answered");
    }
}

#[tokio::test]
async fn nor_is_an_identity_waited_for_that_does_not_look_at_the_connection() {
    let server = serve(AsksElsewhere::default(), narrow()).await;
    let _first = server.connect().await;
    let next = async { Client::over(server.connect().await).await.whose("shop").await };
    assert_eq!(timeout(SOON, next).await.unwrap(), "shop");
}

#[tokio::test]
async fn a_handshake_is_no_greeting_and_wins_no_time_for_one() {
    let handshake_timeout = Duration::from_millis(1500);
    let server = serve(Handshake, Limits { handshake_timeout, ..Limits::default() }).await;
    let begun = Instant::now();
    let mut stream = server.connect().await;
    tokio::time::sleep(handshake_timeout * 4 / 5).await;
    let name = [b'k'; 60]; // a greeting has fewer bytes
    stream.write_all(&[&[60], &name[..]].concat()).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), HEARD);
    // The server's own greeting, and the end.
    let _ = timeout(SOON, stream.read_to_end(&mut Vec::new())).await.unwrap();
    let took = begun.elapsed();
    assert!(took >= handshake_timeout, "{took:?}");
    assert!(took < handshake_timeout * 8 / 5, "{took:?}: the time began anew");
}

#[tokio::test]
async fn a_masked_connection_moves_between_priorities() {
    let server = serve(Handshake, Limits::default()).await;
    let mut kiosk = Client::over(server.shake("kiosk").await.unwrap()).await;
    for (path, wanted) in [("/search", "when idle"), ("/verify", "usual"), ("/search", "when idle")] {
        // It moves after some bulk, or after a verification, and is then served there.
        let mut served = String::new();
        for _ in 0..100 {
            let [is, now] = timeout(SOON, kiosk.ask(path, "shop")).await.unwrap();
            assert_eq!(is, "kiosk");
            served = now;
            if served == wanted {
                break;
            }
        }
        assert_eq!(served, wanted, "{path}");
    }
}
