//! `Debug` of messages that bear images or receipts: lengths alone.

use std::fmt;

use super::pb;

impl fmt::Debug for pb::FaceImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaceImage")
            .field("content", &self.content)
            .field("landmarks", &self.landmarks.is_some())
            .finish()
    }
}

impl fmt::Debug for pb::face_image::Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Encoded(bytes) => write!(f, "Encoded({} bytes)", bytes.len()),
            Self::Raw(raw) => raw.fmt(f),
            Self::ChipPortrait(dg2) => write!(f, "ChipPortrait({} bytes)", dg2.len()),
        }
    }
}

impl fmt::Debug for pb::RawImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawImage({}x{}, {} bytes)", self.width, self.height, self.rgb8.len())
    }
}

impl fmt::Debug for pb::IdentifyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IdentifyRequest")
            .field("context", &self.context)
            .field("receipt_bytes", &self.receipt.len())
            .field("gallery", &self.gallery)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for pb::VerifyResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyResponse")
            .field("decision", &self.decision())
            .field("reason", &self.reason())
            .field("receipt_bytes", &self.receipt.len())
            .field("transaction_id", &self.transaction_id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_image_and_no_receipt_prints() {
        let secret = prost::bytes::Bytes::from_static(&[201; 64]);
        let of = |content| pb::FaceImage { content: Some(content), ..Default::default() };
        let encoded = of(pb::face_image::Content::Encoded(secret.clone()));
        let raw = pb::RawImage { rgb8: secret.clone(), width: 4, height: 5 };
        let shown = [
            format!("{:?}", pb::VerifyRequest { probe: Some(encoded.clone()), ..Default::default() }),
            format!("{:?}", pb::EnrolRequest { image: Some(encoded.clone()), ..Default::default() }),
            format!("{:?}", pb::AssessRequest { image: Some(encoded), ..Default::default() }),
            format!("{:?}", of(pb::face_image::Content::Raw(raw))),
            format!("{:?}", of(pb::face_image::Content::ChipPortrait(secret.clone()))),
            format!("{:?}", pb::IdentifyRequest { receipt: secret.clone(), ..Default::default() }),
            format!("{:?}", pb::VerifyResponse { receipt: secret, score: Some(0.87654), ..Default::default() }),
        ];
        for text in shown {
            assert!(!text.contains("201") && !text.contains("\\xc9") && !text.contains("0.87"), "{text}");
        }
    }
}
