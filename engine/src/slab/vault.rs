//! The store's keys, derived from the root key of its key file.
//!
//! One wraps slab keys, one makes fingerprints, one is only there to recognise a wrong key file. Nothing here knows
//! files, slots or what lies in them. No key is ever shown by `Debug`, an error or a log. Next:
//! [`crate::slab::sealing`].

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac, rand};
use thiserror::Error;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::header::BOUND_BYTES;
use super::layout::{KEY_BYTES, TAG_BYTES, WRAP_NONCE_BYTES, WrappedKey};

pub use super::keyfile::{KeyFile, StoreFile, VaultError};

const WRAP_LABEL: &[u8] = b"croupier wrap v1";
const FINGERPRINT_LABEL: &[u8] = b"croupier fingerprint v1";
const CHECK_LABEL: &[u8] = b"croupier check v1";

/// A key's bytes. Wiped when dropped, and boxed, because moving them would leave copies behind.
pub(super) type KeyBytes = Box<Zeroizing<[u8; KEY_BYTES]>>;

/// A new random key.
pub(super) fn random_key() -> Result<KeyBytes, VaultError> {
    let mut key = KeyBytes::default();
    rand::fill(&mut key[..]).map_err(|_| VaultError::NoRandomness)?;
    Ok(key)
}

/// What finds a secret again without telling anything about it to someone who lacks the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({:032x})", u128::from_be_bytes(self.0))
    }
}

/// The 256-bit key of one slab. Wiped when dropped.
pub struct SlabKey(pub(super) KeyBytes);

impl SlabKey {
    /// A new random key, of no slab: those get theirs from [`Vault::new_key`].
    pub fn generate() -> Result<Self, VaultError> {
        Ok(Self(random_key()?))
    }
}

impl fmt::Debug for SlabKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SlabKey(redacted)")
    }
}

/// A wrapped key that does not unwrap: another store's key, or damage in what is bound to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the slab key does not unwrap under this store's key")]
pub struct UnwrapError;

/// The derived keys of a store.
pub struct Vault {
    store_id: [u8; 16],
    wrap_key: LessSafeKey,
    fingerprint_key: hmac::Key,
    check: [u8; 16],
    /// Keys and nonces follow from what they are bound to: for simulations alone, whose runs repeat themselves.
    #[cfg(any(test, feature = "testing"))]
    repeats: bool,
}

impl Vault {
    /// Derives the keys. The key file can be dropped afterwards.
    pub fn new(key_file: &KeyFile) -> Self {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, &key_file.store_id());
        let root = root.extract(&key_file.root_key[..]);
        let mut check = [0; 16];
        check.copy_from_slice(&derive(&root, CHECK_LABEL)[..16]);
        Self {
            store_id: key_file.store_id(),
            wrap_key: aes_key(&derive(&root, WRAP_LABEL)),
            fingerprint_key: hmac::Key::new(
                hmac::HMAC_SHA256,
                &derive(&root, FINGERPRINT_LABEL)[..],
            ),
            check,
            #[cfg(any(test, feature = "testing"))]
            repeats: false,
        }
    }

    /// As [`new`](Self::new), but nothing that it makes is random.
    #[cfg(any(test, feature = "testing"))]
    pub fn that_repeats(key_file: &KeyFile) -> Self {
        Self {
            repeats: true,
            ..Self::new(key_file)
        }
    }

    /// A new random key for the slab whose header begins so. Every slab takes a new one, as does every attempt to make it, so no
    /// nonce can repeat under a key.
    pub fn new_key(&self, bound: &[u8; BOUND_BYTES]) -> Result<SlabKey, VaultError> {
        let mut key = KeyBytes::default();
        self.fill(&mut key[..], b"key", bound)?;
        Ok(SlabKey(key))
    }

    /// Random bytes.
    #[cfg_attr(
        not(any(test, feature = "testing")),
        expect(unused_variables, reason = "what is random follows from nothing")
    )]
    fn fill(
        &self,
        out: &mut [u8],
        what: &[u8],
        bound: &[u8; BOUND_BYTES],
    ) -> Result<(), VaultError> {
        #[cfg(any(test, feature = "testing"))]
        if self.repeats {
            let mut context = hmac::Context::with_key(&self.fingerprint_key);
            context.update(what);
            context.update(bound);
            out.copy_from_slice(&context.sign().as_ref()[..out.len()]);
            return Ok(());
        }
        rand::fill(out).map_err(|_| VaultError::NoRandomness)
    }

    /// The store whose keys these are.
    pub fn store_id(&self) -> [u8; 16] {
        self.store_id
    }

    /// Tells a wrong key file from the right one; stored in the store file.
    pub fn check(&self) -> [u8; 16] {
        self.check
    }

    /// Wraps a slab key for its header, bound to the header's first bytes.
    pub fn wrap(&self, key: &SlabKey, bound: &[u8; BOUND_BYTES]) -> Result<WrappedKey, VaultError> {
        let mut wrapped = WrappedKey {
            nonce: [0; WRAP_NONCE_BYTES],
            key: [0; KEY_BYTES],
            tag: [0; TAG_BYTES],
        };
        self.fill(&mut wrapped.nonce, b"nonce", bound)?;
        let nonce = Nonce::assume_unique_for_key(wrapped.nonce);
        let WrappedKey {
            key: sealed, tag, ..
        } = &mut wrapped;
        self.wrap_key
            .seal_out_of_place_scatter(nonce, Aad::from(bound), &key.0[..], sealed, &[], tag)
            .expect("lengths are constants that fit");
        Ok(wrapped)
    }

    /// Gets a slab key back from its header.
    pub fn unwrap(
        &self,
        wrapped: &WrappedKey,
        bound: &[u8; BOUND_BYTES],
    ) -> Result<SlabKey, UnwrapError> {
        let mut key = KeyBytes::default();
        let nonce = Nonce::assume_unique_for_key(wrapped.nonce);
        self.wrap_key
            .open_separate_gather(
                nonce,
                Aad::from(bound),
                &wrapped.key,
                &wrapped.tag,
                &mut key[..],
            )
            .map_err(|_| UnwrapError)?;
        Ok(SlabKey(key))
    }

    /// The fingerprint of a secret of a SKU.
    pub fn fingerprint(&self, sku: u32, secret: &[u8]) -> Fingerprint {
        self.fingerprinter(sku).of(secret)
    }

    /// For many fingerprints of one SKU.
    pub fn fingerprinter(&self, sku: u32) -> Fingerprinter {
        let mut begun = hmac::Context::with_key(&self.fingerprint_key);
        begun.update(&sku.to_le_bytes());
        Fingerprinter { begun }
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({}, redacted)", Uuid::from_bytes(self.store_id))
    }
}

/// An HMAC that has the SKU behind it and waits for a secret.
#[derive(Clone)]
pub struct Fingerprinter {
    begun: hmac::Context,
}

impl Fingerprinter {
    /// The fingerprint of a secret.
    pub fn of(&self, secret: &[u8]) -> Fingerprint {
        let mut context = self.begun.clone();
        context.update(secret);
        let tag = context.sign();
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&tag.as_ref()[..16]);
        Fingerprint(fingerprint)
    }
}

struct DerivedKey;

impl hkdf::KeyType for DerivedKey {
    fn len(&self) -> usize {
        KEY_BYTES
    }
}

fn derive(root: &hkdf::Prk, label: &[u8]) -> KeyBytes {
    let mut key = KeyBytes::default();
    root.expand(&[label], DerivedKey)
        .and_then(|okm| okm.fill(&mut key[..]))
        .expect("32 bytes are within what HKDF-SHA-256 gives");
    key
}

/// An AES-256-GCM key from its bytes.
pub(super) fn aes_key(bytes: &[u8; KEY_BYTES]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).expect("32 bytes are a key"))
}

#[cfg(test)]
mod tests;
