//! Until when a caller is worked for.

use std::time::{Duration, Instant};

use tonic::codegen::http::HeaderMap;

use crate::rpc::Limits;

/// When the caller stops waiting: `grpc-timeout`, within the limits.
pub fn deadline(headers: &HeaderMap, limits: &Limits) -> Instant {
    let asked = headers.get("grpc-timeout").and_then(|v| v.to_str().ok()).and_then(timeout);
    Instant::now() + asked.unwrap_or(limits.default_deadline).min(limits.max_deadline)
}

/// gRPC's TimeoutValue TimeoutUnit: at most eight digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (value, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = value.len() <= 8 && value.bytes().all(|byte| byte.is_ascii_digit()); // parse() takes a sign, too
    let value: u64 = value.parse().ok().filter(|_| is_number)?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_worked_for_within_the_limits() {
        let limits = Limits::default();
        let left = |asked: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            asked.into_iter().for_each(|asked| drop(headers.insert("grpc-timeout", asked.parse().unwrap())));
            deadline(&headers, &limits).saturating_duration_since(Instant::now()).as_secs_f64().ceil()
        };
        assert_eq!(left(None), limits.default_deadline.as_secs_f64());
        assert_eq!(left(Some("+5S")), limits.default_deadline.as_secs_f64(), "no number of gRPC's");
        assert_eq!(left(Some("5S")), 5.0);
        assert_eq!(left(Some("99999999H")), limits.max_deadline.as_secs_f64());
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for bad in ["", "m", "5", "-1S", "999999999S", "1é", "1x"] {
            assert_eq!(timeout(bad), None, "{bad:?}");
        }
    }
}
