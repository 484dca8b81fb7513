//! Identifiers: checked once, at the edge, and then trusted.

use std::fmt;

use uuid::Uuid;

/// Why a text is not the identifier it was given for. Never repeats the text: it may hold anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected}")]
pub struct IdError {
    pub what: &'static str,
    pub expected: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal, $expected:literal, $allowed:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// Characters at most.
            pub const MAX_LEN: usize = $max;

            /// Checks length and characters.
            pub fn new(text: &str) -> Result<Self, IdError> {
                let allowed: fn(u8) -> bool = $allowed;
                if text.is_empty() || text.len() > $max || !text.bytes().all(allowed) {
                    return Err(IdError { what: $what, expected: $expected });
                }
                Ok(Self(text.into()))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

fn token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-')
}

fn slug(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-')
}

text_id!(
    /// Names a gallery.
    GalleryName, "gallery", 64, "1 to 64 characters of a-z 0-9 _ -", slug
);
text_id!(
    /// One subject, many references; opaque, never an ID number.
    SubjectId, "subject_id", 128, "1 to 128 characters of A-Z a-z 0-9 . _ : -", token
);
text_id!(
    /// Who calls: the name under which the policy knows a client.
    ClientId, "client", 64, "1 to 64 characters of A-Z a-z 0-9 . _ : -", token
);
text_id!(
    /// The caller's own id for one transaction; stands on every log line.
    TransactionId, "transaction_id", 128, "1 to 128 characters of A-Z a-z 0-9 . _ : -", token
);
text_id!(
    /// Where the data subject's consent is recorded.
    ConsentReference, "consent_reference", 128, "1 to 128 characters of A-Z a-z 0-9 . _ : -", token
);
text_id!(
    /// The person who looks at a case; opaque, never a name.
    ReviewerId, "reviewer", 64, "1 to 64 characters of A-Z a-z 0-9 . _ : -", token
);
text_id!(
    /// The shop, counter or channel that a call comes from.
    Site, "site", 64, "1 to 64 characters of A-Z a-z 0-9 . _ : -", token
);

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh one, of bytes that a random source gave.
            pub fn from_random_bytes(bytes: [u8; 16]) -> Self {
                Self(uuid::Builder::from_random_bytes(bytes).into_uuid())
            }

            pub fn parse(text: &str) -> Result<Self, IdError> {
                // Uuid::try_parse also takes braces and URNs; one form is enough for everyone.
                match Uuid::try_parse(text) {
                    Ok(id) if text.len() == 36 => Ok(Self(id)),
                    _ => Err(IdError { what: $what, expected: "a UUID such as 5f0c6c1e-8a57-4c0e-9b57-0d2f5b0e8c11" }),
                }
            }

            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
    };
}

uuid_id!(
    /// Names one stored reference.
    ReferenceId, "reference_id"
);
uuid_id!(
    /// Names one case of possible duplicate identity.
    CaseId, "case_id"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_take_what_they_say_and_nothing_else() {
        assert!(SubjectId::new("carrier:8842-a.B_7").is_ok());
        assert!(SubjectId::new(&"x".repeat(128)).is_ok());
        for bad in ["", "a b", "é", "a\n", "a/b", &"x".repeat(129)] {
            assert!(SubjectId::new(bad).is_err(), "{bad:?}");
        }
        assert!(GalleryName::new("subscribers_2026").is_ok());
        for bad in ["", "Sub", "a.b", "../x", &"g".repeat(65)] {
            assert!(GalleryName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn uuids_have_one_form() {
        let id = ReferenceId::from_random_bytes([7; 16]);
        assert_eq!(ReferenceId::parse(&id.to_string()), Ok(id));
        for bad in ["", "1", "{5f0c6c1e-8a57-4c0e-9b57-0d2f5b0e8c11}", "5f0c6c1e8a574c0e9b570d2f5b0e8c11"] {
            assert!(ReferenceId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_does_not_repeat_the_text() {
        let error = SubjectId::new("Jane Doe 1980").unwrap_err().to_string();
        assert!(!error.contains("Jane"));
    }
}
