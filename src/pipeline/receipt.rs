//! The verification receipt: proof that a face was just verified, sealed so that only the service can read it.
//!
//! It carries the probe template through the client, so that a 1:N search needs neither an image nor a second extraction.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prost::Message;
use zeroize::Zeroize;

use crate::{
    domain::{ClientId, GalleryName, ModelDigest, Purpose, SubjectId, Template},
    gallery::{Clock, ServiceTime},
    seal::{RootKey, SealError, Sealer, random},
};

/// How long a receipt works.
pub const RECEIPT_LIFETIME: Duration = Duration::from_secs(600);

/// Bytes of a sealed receipt at most; a longer one is refused unopened.
pub const MAX_RECEIPT_BYTES: usize = 4 * Template::MAX_DIMENSION + 1024;

/// Binds the seal to this use and this layout of the claims.
const USE: &str = "vultus verification receipt v2";

/// Why a receipt is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    #[error("expected a receipt from a VerifyResponse, unchanged; this one is not authentic")]
    NotAuthentic,
    #[error("the receipt's ten minutes are over; verify again")]
    Expired,
    #[error("the receipt was given to another client")]
    OtherClient,
    #[error("the receipt was earned in another gallery")]
    OtherGallery,
    #[error("the receipt was earned for another purpose")]
    OtherPurpose,
    #[error("the receipt's template is of another model than this service runs; verify again")]
    OtherModel,
    #[error("the receipt's subject has been erased")]
    SubjectErased,
}

/// What a receipt says.
#[derive(Debug, Clone)]
pub struct Receipt {
    pub probe: Template,
    pub subject: SubjectId,
    pub client: ClientId,
    pub gallery: GalleryName,
    pub purpose: Purpose,
    /// Spent once.
    pub nonce: [u8; 16],
    pub expires: ServiceTime,
    /// Wall time, seconds since 1970.
    expires_at_s: u64,
}

/// Whom a receipt must have been made for.
#[derive(Debug, Clone, Copy)]
pub struct Bearer<'a> {
    pub client: &'a ClientId,
    pub gallery: &'a GalleryName,
    pub purpose: Purpose,
    pub model: ModelDigest,
}

/// The time, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    pub service: ServiceTime,
    pub wall: SystemTime,
}

impl Now {
    pub fn by(clock: &Clock) -> Self {
        Self { service: clock.now(), wall: clock.wall() }
    }
}

/// Issues and opens receipts.
#[derive(Debug, Clone)]
pub struct Receipts(Sealer);

/// The sealed bytes' layout.
#[derive(Clone, PartialEq, Message)]
struct Claims {
    #[prost(float, repeated, tag = "1")]
    probe: Vec<f32>,
    #[prost(bytes = "vec", tag = "2")]
    model: Vec<u8>,
    #[prost(string, tag = "3")]
    subject: String,
    #[prost(string, tag = "4")]
    client: String,
    #[prost(string, tag = "5")]
    gallery: String,
    #[prost(string, tag = "6")]
    purpose: String,
    #[prost(bytes = "vec", tag = "7")]
    nonce: Vec<u8>,
    /// Wall time, seconds since 1970.
    #[prost(uint64, tag = "8")]
    expires_at_s: u64,
    #[prost(int64, tag = "9")]
    expires_service_us: i64,
}

impl Receipts {
    pub fn new(root: &RootKey) -> Self {
        Self(root.sealer(USE))
    }

    /// Seals a fresh receipt; returns it with the time it ends, as people call it.
    pub fn issue(
        &self,
        probe: &Template,
        subject: &SubjectId,
        bearer: Bearer<'_>,
        now: Now,
    ) -> Result<(Vec<u8>, SystemTime), SealError> {
        let nonce: [u8; 16] = random()?;
        let expires_at_s = seconds(now.wall) + RECEIPT_LIFETIME.as_secs();
        let mut claims = Claims {
            probe: probe.values().to_vec(),
            model: bearer.model.as_bytes().to_vec(),
            subject: subject.as_str().into(),
            client: bearer.client.as_str().into(),
            gallery: bearer.gallery.as_str().into(),
            purpose: bearer.purpose.as_str().into(),
            nonce: nonce.to_vec(),
            expires_at_s,
            expires_service_us: now.service.after(RECEIPT_LIFETIME).micros(),
        };
        let mut bytes = claims.encode_to_vec();
        let sealed = self.0.seal(&[], &bytes);
        bytes.zeroize();
        claims.probe.zeroize();
        Ok((sealed?, UNIX_EPOCH + Duration::from_secs(expires_at_s)))
    }

    /// Opens a receipt and checks whom it was made for. Whether it may still be used is [`Receipt::may_be_spent`]'s to say, and that it
    /// was not spent before is the gallery's to know.
    ///
    /// # Errors
    /// `NotAuthentic`, `OtherClient`, `OtherGallery`, `OtherPurpose`.
    pub fn open(&self, sealed: &[u8], bearer: Bearer<'_>) -> Result<Receipt, ReceiptError> {
        if sealed.len() > MAX_RECEIPT_BYTES {
            return Err(ReceiptError::NotAuthentic);
        }
        let bytes = self.0.open(&[], sealed).map_err(|_| ReceiptError::NotAuthentic)?;
        // Authentic bytes are our own; that they do not parse would be another version's layout under the same key.
        let mut claims = Claims::decode(bytes.as_slice()).map_err(|_| ReceiptError::NotAuthentic)?;
        let probe = std::mem::take(&mut claims.probe);
        let model = <[u8; 32]>::try_from(claims.model.as_slice()).map_err(|_| ReceiptError::NotAuthentic)?;
        let receipt = Receipt {
            probe: Template::new(ModelDigest::new(model), probe).map_err(|_| ReceiptError::NotAuthentic)?,
            subject: SubjectId::new(&claims.subject).map_err(|_| ReceiptError::NotAuthentic)?,
            client: ClientId::new(&claims.client).map_err(|_| ReceiptError::NotAuthentic)?,
            gallery: GalleryName::new(&claims.gallery).map_err(|_| ReceiptError::NotAuthentic)?,
            purpose: Purpose::parse(&claims.purpose).ok_or(ReceiptError::NotAuthentic)?,
            nonce: claims.nonce.as_slice().try_into().map_err(|_| ReceiptError::NotAuthentic)?,
            expires: ServiceTime::from_micros(claims.expires_service_us),
            expires_at_s: claims.expires_at_s,
        };
        match () {
            () if receipt.client != *bearer.client => Err(ReceiptError::OtherClient),
            () if receipt.gallery != *bearer.gallery => Err(ReceiptError::OtherGallery),
            () if receipt.purpose != bearer.purpose => Err(ReceiptError::OtherPurpose),
            () => Ok(receipt),
        }
    }
}

impl Receipt {
    /// Either clock may end a receipt: service time cannot be set back, and wall time counts what a stopped service misses.
    ///
    /// # Errors
    /// `Expired`, `OtherModel`.
    pub fn may_be_spent(&self, model: ModelDigest, now: Now) -> Result<(), ReceiptError> {
        match () {
            () if self.expires <= now.service || self.expires_at_s <= seconds(now.wall) => Err(ReceiptError::Expired),
            () if self.probe.model() != model => Err(ReceiptError::OtherModel),
            () => Ok(()),
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: ModelDigest = ModelDigest::new([5; 32]);

    fn names() -> (ClientId, ClientId, GalleryName, GalleryName) {
        (
            ClientId::new("shop").unwrap(),
            ClientId::new("kiosk").unwrap(),
            GalleryName::new("subscribers").unwrap(),
            GalleryName::new("staff").unwrap(),
        )
    }

    #[test]
    fn a_receipt_works_for_its_bearer_alone_and_for_ten_minutes() {
        let receipts = Receipts::new(&RootKey::from_bytes([1; 32]));
        let (client, other_client, gallery, other_gallery) = names();
        let bearer = Bearer { client: &client, gallery: &gallery, purpose: Purpose::SimActivation, model: MODEL };
        let probe = Template::new(MODEL, vec![0.25; 128]).unwrap();
        let subject = SubjectId::new("s-1").unwrap();
        let at = |service_s: u64, wall_s: u64| Now {
            service: ServiceTime::from_micros(5).after(Duration::from_secs(service_s)),
            wall: UNIX_EPOCH + Duration::from_secs(1_000_000 + wall_s),
        };
        let now = at(0, 0);
        let (sealed, expires_at) = receipts.issue(&probe, &subject, bearer, now).unwrap();
        assert_eq!(expires_at, now.wall + RECEIPT_LIFETIME);
        assert!(sealed.len() <= MAX_RECEIPT_BYTES);

        let opened = receipts.open(&sealed, bearer).unwrap();
        assert_eq!((&opened.probe, &opened.subject), (&probe, &subject));
        assert_eq!(opened.may_be_spent(MODEL, at(599, 599)), Ok(()));

        let late = |now| opened.may_be_spent(MODEL, now).unwrap_err();
        assert_eq!(late(at(600, 600)), ReceiptError::Expired);
        // A wall clock that is set back, and a service that stood still.
        let set_back = Now { service: at(600, 0).service, wall: UNIX_EPOCH };
        assert_eq!(late(set_back), ReceiptError::Expired);
        assert_eq!(late(at(1, 600)), ReceiptError::Expired);
        assert_eq!(opened.may_be_spent(ModelDigest::new([6; 32]), now), Err(ReceiptError::OtherModel));
        let refused = |bearer| receipts.open(&sealed, bearer).unwrap_err();
        assert_eq!(refused(Bearer { client: &other_client, ..bearer }), ReceiptError::OtherClient);
        assert_eq!(refused(Bearer { gallery: &other_gallery, ..bearer }), ReceiptError::OtherGallery);
        assert_eq!(refused(Bearer { purpose: Purpose::NumberPorting, ..bearer }), ReceiptError::OtherPurpose);
    }

    #[test]
    fn no_change_to_a_receipt_goes_unseen() {
        let receipts = Receipts::new(&RootKey::from_bytes([1; 32]));
        let (client, _, gallery, _) = names();
        let bearer = Bearer { client: &client, gallery: &gallery, purpose: Purpose::SimActivation, model: MODEL };
        let probe = Template::new(MODEL, vec![0.25; 16]).unwrap();
        let now = Now { service: ServiceTime::from_micros(0), wall: SystemTime::now() };
        let (sealed, _) = receipts.issue(&probe, &SubjectId::new("s").unwrap(), bearer, now).unwrap();
        let refused = |bytes: &[u8]| receipts.open(bytes, bearer).unwrap_err();
        for at in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[at] ^= 0x80;
            assert_eq!(refused(&forged), ReceiptError::NotAuthentic);
            assert_eq!(refused(&sealed[..at]), ReceiptError::NotAuthentic);
        }
        assert_eq!(refused(&vec![0; MAX_RECEIPT_BYTES + 1]), ReceiptError::NotAuthentic);
        let of_another_key = Receipts::new(&RootKey::from_bytes([2; 32]));
        assert_eq!(of_another_key.open(&sealed, bearer).unwrap_err(), ReceiptError::NotAuthentic);
    }

    #[test]
    fn the_greatest_template_fits() {
        let receipts = Receipts::new(&RootKey::from_bytes([1; 32]));
        let long = |c: &str, n| c.repeat(n);
        let (client, gallery) = (ClientId::new(&long("c", 64)).unwrap(), GalleryName::new(&long("g", 64)).unwrap());
        let bearer = Bearer { client: &client, gallery: &gallery, purpose: Purpose::DataSubjectRequest, model: MODEL };
        let probe = Template::new(MODEL, vec![0.1; Template::MAX_DIMENSION]).unwrap();
        let now = Now { service: ServiceTime::from_micros(0), wall: SystemTime::now() };
        let (sealed, _) = receipts.issue(&probe, &SubjectId::new(&long("s", 128)).unwrap(), bearer, now).unwrap();
        assert!(sealed.len() <= MAX_RECEIPT_BYTES, "{}", sealed.len());
        assert!(receipts.open(&sealed, bearer).is_ok());
    }
}
