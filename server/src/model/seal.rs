//! Secrets of others at rest: encrypted with the hub's key, so that a copy of the database gives none of them away.
//!
//! AES-256-GCM with a random nonce of 96 bits. What is sealed is bound to its place (what it is, and the row it is in),
//! so it opens nowhere else. The id of its key stands in front, so keys can be changed: the current one seals, the
//! previous ones open until everything is sealed anew.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Which form what is sealed has.
const FORM: &str = "v1";

/// Why something does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsealable {
    /// It was sealed with a key that is not configured.
    #[error("it is encrypted with key {0}, which is neither ENCRYPTION_KEY nor in ENCRYPTION_KEY_PREVIOUS")]
    UnknownKey(String),
    /// It is damaged, or was moved here from elsewhere.
    #[error("it is damaged, or belongs to something else")]
    Damaged,
}

struct SealKey {
    id: String,
    key: RandomizedNonceKey,
}

impl SealKey {
    /// The key of a secret, which may be any text: its digest is the key, another of it the id.
    fn of(secret: &str) -> SealKey {
        let digest = |purpose: &str| Sha256::new().chain_update(purpose).chain_update(secret.as_bytes()).finalize();
        let id = hex::encode(&digest("upbridge key id\0")[..4]);
        let key = RandomizedNonceKey::new(&AES_256_GCM, &digest("upbridge key\0"));
        SealKey { id, key: key.unwrap_or_else(|_| unreachable!("a digest of 256 bits is a key of 256 bits")) }
    }
}

/// Seals and opens. Cheap to share behind an `Arc`.
pub struct Sealer {
    current: SealKey,
    previous: Vec<SealKey>,
}

impl Sealer {
    /// Seals with `current`; opens with any.
    pub fn new<'a>(current: &str, previous: impl IntoIterator<Item = &'a str>) -> Sealer {
        Sealer { current: SealKey::of(current), previous: previous.into_iter().map(SealKey::of).collect() }
    }

    /// Id of the key that seals, 8 hex digits.
    pub fn key_id(&self) -> &str {
        &self.current.id
    }

    /// Ids of the keys that open and no longer seal.
    pub fn previous_ids(&self) -> Vec<String> {
        self.previous.iter().map(|key| key.id.clone()).filter(|id| *id != self.current.id).collect()
    }

    /// Seals what stands in row `id` for `purpose`.
    pub fn seal(&self, purpose: &str, id: Uuid, plain: &[u8]) -> String {
        let mut sealed = plain.to_vec();
        let place = place(purpose, id);
        let nonce = self.current.key.seal_in_place_append_tag(Aad::from(place), &mut sealed);
        let nonce = nonce.unwrap_or_else(|_| unreachable!("what fits into memory can be encrypted"));
        let bytes = [nonce.as_ref().as_slice(), &sealed].concat();
        format!("{FORM}.{}.{}", self.current.id, STANDARD_NO_PAD.encode(bytes))
    }

    /// Opens what was sealed for the same purpose and row.
    pub fn open(&self, purpose: &str, id: Uuid, sealed: &str) -> Result<Vec<u8>, Unsealable> {
        let mut parts = sealed.splitn(3, '.');
        let (Some(FORM), Some(key_id), Some(text)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(Unsealable::Damaged);
        };
        let keys = std::iter::once(&self.current).chain(&self.previous);
        let key = keys.into_iter().find(|key| key.id == key_id);
        let key = key.ok_or_else(|| Unsealable::UnknownKey(key_id.chars().take(32).collect()))?;
        let mut bytes = STANDARD_NO_PAD.decode(text).map_err(|_| Unsealable::Damaged)?;
        let nonce = bytes.first_chunk::<NONCE_LEN>().copied().ok_or(Unsealable::Damaged)?;
        let sealed = &mut bytes[NONCE_LEN..];
        let nonce = Nonce::assume_unique_for_key(nonce);
        let plain = key.key.open_in_place(nonce, Aad::from(place(purpose, id)), sealed);
        plain.map(|plain| plain.to_vec()).map_err(|_| Unsealable::Damaged)
    }
}

fn place(purpose: &str, id: Uuid) -> Vec<u8> {
    [purpose.as_bytes(), b"\0", id.as_bytes()].concat()
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({})", self.current.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_in_its_place_alone_and_never_reads_alike() {
        let sealer = Sealer::new("a key", []);
        let (here, there) = (Uuid::now_v7(), Uuid::now_v7());
        let sealed = sealer.seal("credentials", here, b"secret");
        assert_ne!(sealed, sealer.seal("credentials", here, b"secret"));
        assert!(!sealed.contains("secret") && sealed.starts_with(&format!("v1.{}.", sealer.key_id())));
        assert_eq!(sealer.open("credentials", here, &sealed).as_deref(), Ok(&b"secret"[..]));
        assert_eq!(sealer.open("credentials", there, &sealed), Err(Unsealable::Damaged));
        assert_eq!(sealer.open("webhook", here, &sealed), Err(Unsealable::Damaged));
    }

    #[test]
    fn every_changed_character_is_noticed() {
        let sealer = Sealer::new("a key", []);
        let id = Uuid::now_v7();
        let sealed = sealer.seal("credentials", id, b"secret");
        for at in 0..sealed.len() {
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(sealer.open("credentials", id, &changed).is_err(), "{at}");
        }
        for short in ["", "v1", "v1.", "v1..", "v1.x.y", &format!("v1.{}.", sealer.key_id())] {
            assert!(sealer.open("credentials", id, short).is_err(), "{short}");
        }
    }

    #[test]
    fn previous_keys_open_and_the_current_one_seals() {
        let (old, id) = (Sealer::new("old", []), Uuid::now_v7());
        let sealed = old.seal("credentials", id, b"secret");
        let new = Sealer::new("new", ["old"]);
        assert_eq!(new.open("credentials", id, &sealed).as_deref(), Ok(&b"secret"[..]));
        assert!(new.seal("credentials", id, b"secret").starts_with(&format!("v1.{}.", new.key_id())));
        let unknown = Err(Unsealable::UnknownKey(old.key_id().to_owned()));
        assert_eq!(Sealer::new("new", []).open("credentials", id, &sealed), unknown);
    }
}
