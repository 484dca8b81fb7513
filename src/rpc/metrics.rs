//! The port that Prometheus scrapes: few connections, none of them for long, so that it takes no file handle that a caller needs.

use std::{future::pending, io, net::SocketAddr, time::Duration};

use axum::{Router, http::StatusCode, routing::get, serve::Listener};
use tokio::{net::TcpListener, sync::watch};
use tokio_stream::{StreamExt, wrappers::ReceiverStream};

use super::connection::{Connection, Patience, accept};
use crate::telemetry::Metrics;

/// Connections at a time; more wait in the system's backlog.
const CONNECTIONS: usize = 16;
/// What a connection has for everything. A scraper connects again.
const LIFE: Duration = Duration::from_secs(10);

struct Few {
    incoming: ReceiverStream<Connection>,
    address: SocketAddr,
}

impl Listener for Few {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        match self.incoming.next().await {
            Some(connection) => (connection, self.address),
            None => pending().await, // its task has ended, with the runtime
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// `/metrics`, in Prometheus' text format, on its own port.
///
/// # Errors
/// When the listener has no address.
pub async fn serve(listener: TcpListener, stopped: watch::Receiver<bool>) -> io::Result<()> {
    serve_for(LIFE, listener, stopped).await
}

async fn serve_for(life: Duration, listener: TcpListener, mut stopped: watch::Receiver<bool>) -> io::Result<()> {
    let exposition = || async {
        Metrics::get().exposition().map_err(|error| {
            tracing::error!(%error, "metrics do not encode");
            StatusCode::INTERNAL_SERVER_ERROR
        })
    };
    let routes = Router::new().route("/metrics", get(exposition));
    let stop = async move {
        let _ = stopped.wait_for(|stop| *stop).await; // an error means that the sender is gone: stop as well
    };
    let address = listener.local_addr()?;
    let patience = Patience { handshake: life, first_request: life, whole: life };
    let few = Few { incoming: accept(listener, CONNECTIONS, patience), address };
    axum::serve(few, routes).with_graceful_shutdown(stop).await
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    #[tokio::test]
    async fn who_says_nothing_keeps_no_scraper_waiting() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_stop, stopped) = watch::channel(false);
        let life = Duration::from_millis(200);
        tokio::spawn(serve_for(life, listener, stopped));
        let mut silent = Vec::new();
        for _ in 0..2 * CONNECTIONS {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut scraper = TcpStream::connect(address).await.unwrap();
        scraper.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        // After two lives of those who came before.
        tokio::time::timeout(Duration::from_secs(20), scraper.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
