//! Keys, and what is sealed under them: templates at rest, receipts on their way through a client.
//!
//! One root secret of 32 bytes, which replicas share; HKDF-SHA256 derives a key per use, so that no sealed thing can
//! pass for another kind. AES-256-GCM with random 96-bit nonces: a derived key seals at most 2^32 messages.

use std::{
    fmt, fs,
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

const ROOT_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// Why there is no root key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("reading the root key: {0}")]
    Read(#[source] io::Error),
    #[error("writing the root key: {0}")]
    Write(#[source] io::Error),
    #[error("the root key must be exactly {ROOT_BYTES} bytes; this file has another length")]
    Length,
    #[error("the root key's file must be readable by its owner alone (mode 0600 or 0400), its mode is {mode:o}")]
    Exposed { mode: u32 },
    #[error("the system's random source failed")]
    Random,
}

/// Why a sealed message does not open: forged, damaged, of another key or another use. One word for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed message is not authentic")]
pub struct NotAuthentic;

/// The system's random source failed; nothing was sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system's random source failed")]
pub struct SealError;

/// Bytes of the system's random source: the one place where the service draws any.
///
/// # Errors
/// When the system has none.
pub fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| SealError)?;
    Ok(bytes)
}

/// The secret that everything else is derived from. Wiped when dropped.
#[derive(Clone)]
pub struct RootKey(Zeroizing<[u8; ROOT_BYTES]>);

impl RootKey {
    pub fn from_bytes(bytes: [u8; ROOT_BYTES]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// A fresh one, from the system's random source.
    pub fn random() -> Result<Self, KeyError> {
        Ok(Self(Zeroizing::new(random().map_err(|_| KeyError::Random)?)))
    }

    /// Reads 32 raw bytes from a file that only its owner can read.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let mut file = fs::File::open(path).map_err(KeyError::Read)?;
        let mode = file.metadata().map_err(KeyError::Read)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Exposed { mode });
        }
        let mut bytes = Zeroizing::new([0; ROOT_BYTES]);
        file.read_exact(bytes.as_mut_slice()).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => KeyError::Length,
            _ => KeyError::Read(e),
        })?;
        match file.read(&mut [0]).map_err(KeyError::Read)? {
            0 => Ok(Self(bytes)),
            _ => Err(KeyError::Length),
        }
    }

    /// Loads the key; if there is no file, makes one (mode 0600) and makes it durable. Of several who make it at once, all get
    /// the first one's.
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        match Self::load(path) {
            Err(KeyError::Read(e)) if e.kind() == io::ErrorKind::NotFound => {
                Self::create(path)?;
                Self::load(path)
            }
            loaded => loaded,
        }
    }

    /// A whole key appears under the name or none, and never over another: written aside, synced, linked.
    fn create(path: &Path) -> Result<(), KeyError> {
        let key = Self::random()?;
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let aside = path.with_extension(format!("{}.new", hex::encode(random::<8>().map_err(|_| KeyError::Random)?)));
        let write = || -> io::Result<()> {
            fs::create_dir_all(folder)?;
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
            file.write_all(key.0.as_slice())?;
            file.sync_all()?;
            match fs::hard_link(&aside, path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
                _ => {}
            }
            fs::remove_file(&aside)?;
            fs::File::open(folder)?.sync_all() // the name is durable too
        };
        write().map_err(|e| {
            let _ = fs::remove_file(&aside); // may be there or not
            KeyError::Write(e)
        })
    }

    /// A key for one use; `purpose` names it, for example `"vultus receipt v1"`.
    pub fn sealer(&self, purpose: &str) -> Sealer {
        let mut key = Zeroizing::new([0; 32]);
        // 32 bytes is far below HKDF-SHA256's limit of 8160, and AES-256 takes exactly 32: neither can fail.
        if Hkdf::<Sha256>::new(None, self.0.as_slice()).expand(purpose.as_bytes(), key.as_mut_slice()).is_err() {
            unreachable!("HKDF-SHA256 expands to 32 bytes");
        }
        Sealer(Aes256Gcm::new((&*key).into()))
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(***)")
    }
}

/// Seals and opens messages of one use.
#[derive(Clone)]
pub struct Sealer(Aes256Gcm);

impl Sealer {
    /// Bytes that sealing adds.
    pub const OVERHEAD: usize = NONCE_BYTES + TAG_BYTES;

    /// Nonce, ciphertext, tag. `context` is authenticated, not stored: opening needs the same.
    pub fn seal(&self, context: &[u8], message: &[u8]) -> Result<Vec<u8>, SealError> {
        let nonce: [u8; NONCE_BYTES] = random()?;
        let payload = Payload { msg: message, aad: context };
        let sealed = self.0.encrypt((&nonce).into(), payload).map_err(|_| SealError)?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>().ok_or(NotAuthentic)?;
        let payload = Payload { msg: sealed, aad: context };
        self.0.decrypt(nonce.into(), payload).map(Zeroizing::new).map_err(|_| NotAuthentic)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_only_as_it_was_sealed() {
        let root = RootKey::from_bytes([7; 32]);
        let sealer = root.sealer("a");
        let sealed = sealer.seal(b"context", b"message").unwrap();
        assert_eq!(sealed.len(), 7 + Sealer::OVERHEAD);
        assert_eq!(sealer.open(b"context", &sealed).unwrap().as_slice(), b"message");
        assert_eq!(sealer.open(b"other", &sealed), Err(NotAuthentic));
        assert_eq!(root.sealer("b").open(b"context", &sealed), Err(NotAuthentic));
        assert_eq!(RootKey::from_bytes([8; 32]).sealer("a").open(b"context", &sealed), Err(NotAuthentic));
        for length in 0..sealed.len() {
            assert_eq!(sealer.open(b"context", &sealed[..length]), Err(NotAuthentic));
        }
        for at in 0..sealed.len() {
            let mut forged = sealed.clone();
            forged[at] ^= 1;
            assert_eq!(sealer.open(b"context", &forged), Err(NotAuthentic));
        }
    }

    #[test]
    fn no_two_sealings_are_alike() {
        let sealer = RootKey::from_bytes([7; 32]).sealer("a");
        assert_ne!(sealer.seal(b"", b"m").unwrap(), sealer.seal(b"", b"m").unwrap());
    }

    #[test]
    fn a_key_file_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys/root.key");
        let made = RootKey::load_or_create(&path).unwrap();
        let read = RootKey::load_or_create(&path).unwrap();
        assert_eq!(made.0.as_slice(), read.0.as_slice());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(RootKey::load(&path), Err(KeyError::Exposed { mode: 0o644 })));
        for length in [0, 31, 33] {
            fs::write(&path, vec![1; length]).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(RootKey::load(&path), Err(KeyError::Length)));
        }
    }

    #[test]
    fn all_who_make_a_key_at_once_get_the_same() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let folder = dir.path().join(round.to_string());
            let (path, start) = (folder.join("root.key"), std::sync::Barrier::new(8));
            let keys: Vec<RootKey> = std::thread::scope(|scope| {
                let make = || {
                    start.wait();
                    RootKey::load_or_create(&path).unwrap()
                };
                let makers: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
                makers.into_iter().map(|maker| maker.join().unwrap()).collect()
            });
            assert!(keys.iter().all(|key| key.0 == keys[0].0));
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left beside it");
        }
    }

    #[test]
    fn secrets_do_not_print() {
        let root = RootKey::from_bytes([7; 32]);
        assert_eq!(format!("{root:?} {:?}", root.sealer("x")), "RootKey(***) Sealer(***)");
    }
}
