//! A limit that was reached.

/// Why there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    #[error("as many requests of the lane as are allowed are being answered")]
    Lane,
    #[error("as many requests of the client as are allowed are being answered")]
    Client,
    #[error("as many streams of the lane as are allowed are open")]
    Streams,
    #[error("its deadline would pass before its turn comes")]
    Time,
    /// Another client's request has its place.
    #[error("its message was not there when all places were taken, and its client had more such than others")]
    Unarrived,
    #[error("as many bytes of requests as are allowed are held")]
    Bytes,
    #[error("as many bytes of the client's requests as are allowed are held")]
    ClientBytes,
}

impl NoRoom {
    /// The word for it in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Lane => "lane",
            Self::Client => "client",
            Self::Streams => "streams",
            Self::Time => "time",
            Self::Unarrived => "unarrived",
            Self::Bytes => "bytes",
            Self::ClientBytes => "client_bytes",
        }
    }

    /// Whether the limit is the client's own, and not the server's.
    pub const fn is_the_clients(self) -> bool {
        matches!(self, Self::Client | Self::ClientBytes)
    }
}
