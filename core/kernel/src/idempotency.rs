//! Retries: a key from the caller, kept on the record that it made together with a digest of the parsed request.

use crate::actor::Actor;
use crate::error::{Problem, codes};
use crate::secret::sha256_hex;
use serde::Serialize;

/// Longest key accepted, in bytes.
const KEY_LENGTH_MAX: usize = 200;

/// A caller's `Idempotency-Key`, unique per actor and operation, with the digest of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// What the record's unique column holds: actor, operation and the caller's key.
    pub stored: String,
    /// SHA-256 of the parsed request, in hex.
    pub digest: String,
}

impl IdempotencyKey {
    /// Builds the key of a request. `request` is the parsed body: a retry that only spells it differently has the same digest.
    ///
    /// # Errors
    /// `idempotency_key_missing`, or `invalid_request` for one that is too long or not printable.
    pub fn new(actor: &Actor, operation: &str, header: Option<&str>, request: &impl Serialize) -> Result<IdempotencyKey, Problem> {
        let key = header.ok_or_else(|| {
            Problem::new(codes::IDEMPOTENCY_KEY_MISSING, "send an Idempotency-Key header, such as a UUID, and the same one when you retry")
                .field("Idempotency-Key")
        })?;
        if key.is_empty() || key.len() > KEY_LENGTH_MAX || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(Problem::invalid(
                "Idempotency-Key",
                format!("expected 1 to {KEY_LENGTH_MAX} printable ASCII characters without spaces"),
            ));
        }
        let body = serde_json::to_vec(request).map_err(|e| Problem::new(codes::INTERNAL, e.to_string()))?;
        Ok(IdempotencyKey { stored: format!("{}|{operation}|{key}", actor.name()), digest: sha256_hex(&body) })
    }

    /// Compares with the digest on the record that the key made: the same request is answered again, another one refused.
    ///
    /// # Errors
    /// `idempotency_key_reused`.
    pub fn check(&self, stored_digest: &str) -> Result<(), Problem> {
        if self.digest == stored_digest {
            return Ok(());
        }
        Err(Problem::new(codes::IDEMPOTENCY_KEY_REUSED, "this Idempotency-Key was used for a request with another body; use a fresh key")
            .field("Idempotency-Key"))
    }
}
