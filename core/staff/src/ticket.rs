//! What a log-in must remember between its two halves, sealed and in the hands of whoever began it: nothing is written for a stranger.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use heyuan_kernel::Problem;
use heyuan_kernel::keys::same;
use heyuan_kernel::secret::{Key, TenantKeys, sha256_hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::problem::codes;

/// A log-in is finished within this time: long enough for a second factor.
pub(crate) const LOG_IN_TIME_MS: i64 = 10 * 60_000;
/// Bytes of randomness in a state, a nonce and a verifier.
const RANDOM_BYTES: usize = 32;
/// Longest ticket that is looked at, in bytes; ours have about three hundred.
const TICKET_BYTES_MAX: usize = 1024;
/// What a ticket is sealed for.
const CONTEXT: &[u8] = b"staff log-in";

/// A log-in that was begun.
#[derive(Serialize, Deserialize)]
pub(crate) struct Ticket {
    /// Comes back with the code.
    pub(crate) state: String,
    /// Stands in the token that the code is exchanged for.
    pub(crate) nonce: String,
    /// Shows the provider that who exchanges the code is who asked for it (PKCE).
    pub(crate) verifier: String,
    pub(crate) expires_at: i64,
}

fn random() -> String {
    let random: [u8; RANDOM_BYTES] = rand::random();
    URL_SAFE_NO_PAD.encode(random)
}

fn key(keys: &TenantKeys) -> Key {
    keys.token().derive("heyuan/v1/staff-log-in")
}

impl Ticket {
    pub(crate) fn fresh(now: i64) -> Ticket {
        Ticket { state: random(), nonce: random(), verifier: random(), expires_at: now + LOG_IN_TIME_MS }
    }

    /// What the provider is shown before the verifier itself.
    pub(crate) fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.verifier.as_bytes()))
    }

    /// What stands in the table once it was used up.
    pub(crate) fn state_hash(&self) -> String {
        sha256_hex(self.state.as_bytes())
    }

    pub(crate) fn sealed(&self, keys: &TenantKeys) -> String {
        let plain = serde_json::to_vec(self).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(key(keys).seal(&plain, CONTEXT))
    }

    /// The log-in of a ticket, when the state is its own and it may still be finished. Nobody learns which of these it was.
    pub(crate) fn opened(keys: &TenantKeys, sealed: &str, state: &str, now: i64) -> Result<Ticket, Problem> {
        let bytes = Some(sealed).filter(|sealed| sealed.len() <= TICKET_BYTES_MAX).and_then(|sealed| URL_SAFE_NO_PAD.decode(sealed).ok());
        let plain = bytes.and_then(|bytes| key(keys).open(&bytes, CONTEXT));
        let ticket = plain.and_then(|plain| serde_json::from_slice::<Ticket>(&plain).ok());
        ticket.filter(|ticket| ticket.expires_at > now && same(ticket.state.as_bytes(), state.as_bytes())).ok_or_else(spent)
    }
}

/// What is said of a ticket that opens nothing, or nothing more.
pub(crate) fn spent() -> Problem {
    let words = "ticket and state are not of one log-in that was begun here in the last ten minutes and not finished; begin again";
    Problem::new(codes::STAFF_STATE_REFUSED, words).field("state")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_opens_with_its_own_state_and_key_and_in_time() {
        let keys = TenantKeys::new(&Key::from_bytes([7; 32]));
        let (one, other) = (Ticket::fresh(0), Ticket::fresh(0));
        let sealed = one.sealed(&keys);
        assert!(!sealed.contains(&one.state) && sealed.len() <= TICKET_BYTES_MAX, "{}", sealed.len());
        let opened = Ticket::opened(&keys, &sealed, &one.state, LOG_IN_TIME_MS - 1).expect("it opens");
        assert_eq!((opened.nonce, opened.verifier), (one.nonce.clone(), one.verifier.clone()));
        let strange = TenantKeys::new(&Key::from_bytes([8; 32]));
        for (keys, sealed, state, now) in [
            (&keys, sealed.as_str(), one.state.as_str(), LOG_IN_TIME_MS),
            (&keys, &sealed, &other.state, 0),
            (&keys, &sealed, "", 0),
            (&keys, &sealed[1..], &one.state, 0),
            (&keys, "", &one.state, 0),
            (&keys, "!", &one.state, 0),
            (&strange, &sealed, &one.state, 0),
        ] {
            assert!(Ticket::opened(keys, sealed, state, now).is_err_and(|problem| problem.code().code == "staff_state_refused"));
        }
    }
}
