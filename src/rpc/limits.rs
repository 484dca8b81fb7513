//! What a client can make the server hold or do, at most. Each limit is a setting of its name in the configuration.

use std::time::Duration;

/// Every limit has a default that suits crops of 20 KB on one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message. Two images of the greatest size fit (the 2 MiB of an encoded one; a raw one may be larger than that).
    pub message_bytes: usize,
    /// Verifications and assessments answered at a time; more are refused with RESOURCE_EXHAUSTED.
    pub verifications_in_flight: usize,
    /// Identifications.
    pub identifications_in_flight: usize,
    /// Enrolments, erasures, reviews and the rest. Half of them at most are EnrolStreams, and a quarter those of one client.
    pub back_office_in_flight: usize,
    /// Verifications of one client answered at a time, and others. Of a lane it has half at most.
    pub client_in_flight: usize,
    /// Bytes of messages held at a time, from the first byte to the answer; a request that would pass it is refused. Of a stream's
    /// messages each is counted once it is whole, so that one more for each stream may be on its way. A quarter of them is for what
    /// is no verification, and the rest for those.
    pub bytes_in_flight: usize,
    /// Of these, one client's.
    pub client_bytes_in_flight: usize,
    /// How long a message may take to arrive, once its request is let in.
    pub message_timeout: Duration,
    /// Streams of health and reflection, which anyone may open, at a time.
    pub open_streams: usize,
    /// Connections at a time; more wait in the system's backlog.
    pub connections: usize,
    /// How long a new connection may take for HTTP/2's greeting.
    pub handshake_timeout: Duration,
    /// How long a new connection may take until its first request.
    pub first_request_timeout: Duration,
    /// A connection that is so old is told to go, and its client connects anew.
    pub connection_age: Duration,
    /// How long it may still be used for what is in flight.
    pub connection_age_grace: Duration,
    /// How often an idle connection is asked whether it is there.
    pub keepalive: Duration,
    /// How long the answer to that may take.
    pub keepalive_timeout: Duration,
    /// Streams on one connection.
    pub streams_per_connection: u32,
    /// Bytes of a request's headers.
    pub header_bytes: u32,
    /// Bytes of one HTTP/2 frame: a crop fits in one.
    pub frame_bytes: u32,
    /// Bytes that a client may send on a stream before they are read: some crops, so that none waits for a window.
    pub stream_window_bytes: u32,
    /// The same for a connection: bounds what a client that is not read can make the server hold.
    pub connection_window_bytes: u32,
    /// Streams that a client opened and reset before they were looked at; more end the connection.
    pub pending_resets: usize,
    /// Streams that the server reset for a client's errors; more end the connection.
    pub error_resets: usize,
    /// Items of EnrolStreams that are worked on at a time, of one and of all together; the senders wait for more.
    pub enrol_stream_window: usize,
    /// How long a caller that names no deadline is worked for.
    pub default_deadline: Duration,
    /// The longest that any caller is worked for.
    pub max_deadline: Duration,
    /// How often a canary runs.
    pub canary_interval: Duration,
    /// How long requests in flight may take once the server is told to stop.
    pub drain_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 5 << 20,
            verifications_in_flight: 256,
            identifications_in_flight: 64,
            back_office_in_flight: 64,
            client_in_flight: 128,
            bytes_in_flight: 256 << 20,
            client_bytes_in_flight: 128 << 20,
            message_timeout: Duration::from_secs(10),
            open_streams: 64,
            connections: 1024,
            handshake_timeout: Duration::from_secs(10),
            first_request_timeout: Duration::from_secs(60),
            connection_age: Duration::from_secs(600),
            connection_age_grace: Duration::from_secs(60),
            keepalive: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            streams_per_connection: 128,
            header_bytes: 16 << 10,
            frame_bytes: 64 << 10,
            stream_window_bytes: 128 << 10,
            connection_window_bytes: 1 << 20,
            pending_resets: 64,
            error_resets: 256,
            enrol_stream_window: 64,
            default_deadline: Duration::from_secs(10),
            max_deadline: Duration::from_secs(60),
            canary_interval: Duration::from_secs(60),
            drain_grace: Duration::from_secs(25),
        }
    }
}
