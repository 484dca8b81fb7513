//! The section `[limits]`: what the transport and the door allow.

use std::time::Duration;

use serde::Deserialize;

use super::Faults;
use crate::rpc::Limits;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawLimits {
    message_bytes: Option<usize>,
    verifications_in_flight: Option<usize>,
    identifications_in_flight: Option<usize>,
    back_office_in_flight: Option<usize>,
    client_in_flight: Option<usize>,
    bytes_in_flight: Option<usize>,
    client_bytes_in_flight: Option<usize>,
    message_timeout_ms: Option<u64>,
    open_streams: Option<usize>,
    connections: Option<usize>,
    handshake_timeout_ms: Option<u64>,
    first_request_timeout_ms: Option<u64>,
    connection_age_s: Option<u64>,
    connection_age_grace_s: Option<u64>,
    keepalive_ms: Option<u64>,
    keepalive_timeout_ms: Option<u64>,
    streams_per_connection: Option<u32>,
    header_bytes: Option<u32>,
    frame_bytes: Option<u32>,
    stream_window_bytes: Option<u32>,
    connection_window_bytes: Option<u32>,
    pending_resets: Option<usize>,
    error_resets: Option<usize>,
    enrol_stream_window: Option<usize>,
    default_deadline_ms: Option<u64>,
    max_deadline_ms: Option<u64>,
    canary_interval_s: Option<u64>,
    drain_grace_s: Option<u64>,
    pub(super) image_bytes: Option<usize>,
    pub(super) image_side_px: Option<u32>,
    pub(super) image_pixels: Option<u64>,
    pub(super) pixel_bytes: Option<usize>,
    pub(super) queue_depth: Option<usize>,
    pub(super) batch_images: Option<usize>,
    pub(super) max_galleries: Option<usize>,
    pub(super) max_references: Option<usize>,
    pub(super) max_references_per_subject: Option<usize>,
}

/// Each setting in its range, or its default. What does not fit together is a fault, too.
pub fn check(raw: &RawLimits, faults: &mut Faults) -> Limits {
    let d = Limits::default();
    let limits = Limits {
        message_bytes: faults.within("limits.message_bytes", raw.message_bytes, 1 << 10..=64 << 20, d.message_bytes),
        verifications_in_flight: faults.within(
            "limits.verifications_in_flight",
            raw.verifications_in_flight,
            1..=65_536,
            d.verifications_in_flight,
        ),
        identifications_in_flight: faults.within(
            "limits.identifications_in_flight",
            raw.identifications_in_flight,
            1..=65_536,
            d.identifications_in_flight,
        ),
        back_office_in_flight: faults.within(
            "limits.back_office_in_flight",
            raw.back_office_in_flight,
            1..=65_536,
            d.back_office_in_flight,
        ),
        client_in_flight: faults.within(
            "limits.client_in_flight",
            raw.client_in_flight,
            1..=65_536,
            d.client_in_flight,
        ),
        bytes_in_flight: faults.within(
            "limits.bytes_in_flight",
            raw.bytes_in_flight,
            1 << 20..=1 << 40,
            d.bytes_in_flight,
        ),
        client_bytes_in_flight: faults.within(
            "limits.client_bytes_in_flight",
            raw.client_bytes_in_flight,
            1 << 20..=1 << 40,
            d.client_bytes_in_flight,
        ),
        message_timeout: faults.millis("limits.message_timeout_ms", raw.message_timeout_ms, d.message_timeout),
        open_streams: faults.within("limits.open_streams", raw.open_streams, 1..=65_536, d.open_streams),
        connections: faults.within("limits.connections", raw.connections, 1..=65_536, d.connections),
        handshake_timeout: faults.millis("limits.handshake_timeout_ms", raw.handshake_timeout_ms, d.handshake_timeout),
        first_request_timeout: faults.millis(
            "limits.first_request_timeout_ms",
            raw.first_request_timeout_ms,
            d.first_request_timeout,
        ),
        connection_age: faults.seconds("limits.connection_age_s", raw.connection_age_s, 1, d.connection_age),
        connection_age_grace: faults.seconds(
            "limits.connection_age_grace_s",
            raw.connection_age_grace_s,
            0,
            d.connection_age_grace,
        ),
        keepalive: faults.millis("limits.keepalive_ms", raw.keepalive_ms, d.keepalive),
        keepalive_timeout: faults.millis("limits.keepalive_timeout_ms", raw.keepalive_timeout_ms, d.keepalive_timeout),
        streams_per_connection: faults.within(
            "limits.streams_per_connection",
            raw.streams_per_connection,
            1..=65_536,
            d.streams_per_connection,
        ),
        header_bytes: faults.within("limits.header_bytes", raw.header_bytes, 1 << 10..=1 << 20, d.header_bytes),
        // HTTP/2's own range.
        frame_bytes: faults.within("limits.frame_bytes", raw.frame_bytes, 1 << 14..=(1 << 24) - 1, d.frame_bytes),
        stream_window_bytes: faults.within(
            "limits.stream_window_bytes",
            raw.stream_window_bytes,
            (1 << 16) - 1..=1 << 30,
            d.stream_window_bytes,
        ),
        connection_window_bytes: faults.within(
            "limits.connection_window_bytes",
            raw.connection_window_bytes,
            (1 << 16) - 1..=1 << 30,
            d.connection_window_bytes,
        ),
        pending_resets: faults.within("limits.pending_resets", raw.pending_resets, 1..=65_536, d.pending_resets),
        error_resets: faults.within("limits.error_resets", raw.error_resets, 1..=65_536, d.error_resets),
        enrol_stream_window: faults.within(
            "limits.enrol_stream_window",
            raw.enrol_stream_window,
            1..=4096,
            d.enrol_stream_window,
        ),
        default_deadline: faults.millis("limits.default_deadline_ms", raw.default_deadline_ms, d.default_deadline),
        max_deadline: faults.millis("limits.max_deadline_ms", raw.max_deadline_ms, d.max_deadline),
        canary_interval: faults.seconds("limits.canary_interval_s", raw.canary_interval_s, 1, d.canary_interval),
        drain_grace: faults.seconds("limits.drain_grace_s", raw.drain_grace_s, 0, d.drain_grace),
    };
    if limits.default_deadline > limits.max_deadline {
        faults.add(format!(
            "limits.default_deadline_ms: expected at most limits.max_deadline_ms, {}, got {}",
            limits.max_deadline.as_millis(),
            limits.default_deadline.as_millis(),
        ));
    }
    // A message for verifications, and one for all else.
    if limits.bytes_in_flight / 2 < limits.message_bytes || limits.client_bytes_in_flight < limits.message_bytes {
        faults.add(format!(
            "limits.bytes_in_flight and limits.client_bytes_in_flight: expected at least twice and once limits.message_bytes, {}",
            limits.message_bytes
        ));
    }
    limits
}

impl Faults {
    fn seconds(&mut self, name: &str, value: Option<u64>, least: u64, default: Duration) -> Duration {
        Duration::from_secs(self.within(name, value, least..=86_400, default.as_secs()))
    }
}
