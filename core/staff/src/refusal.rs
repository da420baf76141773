//! Why a token of the provider's is not believed, in one word for the audit record and in a sentence for whoever mends it.

use crate::problem::codes;
use heyuan_kernel::Problem;

/// Why a token is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    Code,
    Unsigned,
    UnknownKey,
    Signature,
    Claims,
    Issuer,
    Audience,
    Expired,
    NotYet,
    Nonce,
    Subject,
    UserinfoSubject,
    LoggedOut,
    Event,
    NonceThere,
    Nobody,
    TokenId,
    Old,
    Seen,
}

impl Refusal {
    /// The reason in the audit record.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Refusal::Code => "code",
            Refusal::Unsigned => "unsigned",
            Refusal::UnknownKey => "unknown_key",
            Refusal::Signature => "signature",
            Refusal::Claims => "claims",
            Refusal::Issuer => "issuer",
            Refusal::Audience => "audience",
            Refusal::Expired => "expired",
            Refusal::NotYet => "not_yet",
            Refusal::Nonce | Refusal::NonceThere => "nonce",
            Refusal::Subject | Refusal::Nobody => "subject",
            Refusal::UserinfoSubject => "userinfo_subject",
            Refusal::LoggedOut => "logged_out",
            Refusal::Event => "events",
            Refusal::TokenId => "token_id",
            Refusal::Old => "old",
            Refusal::Seen => "seen",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Refusal::Code => "the code was used, has expired or is of another log-in",
            Refusal::Unsigned => "it is not signed by RS256 or ES256",
            Refusal::UnknownKey => "it names no key that the provider publishes for signing",
            Refusal::Signature => "its signature is not the provider's",
            Refusal::Claims => "it lacks a claim that every token of its kind has, or one is of a wrong type",
            Refusal::Issuer => "it was issued by somebody else (iss)",
            Refusal::Audience => "it was issued for somebody else (aud, azp)",
            Refusal::Expired => "it has expired (exp); compare the provider's clock with ours",
            Refusal::NotYet => "it does not hold yet (nbf, iat); compare the provider's clock with ours",
            Refusal::Nonce => "it was not asked for by this log-in (nonce)",
            Refusal::Subject => "it names nobody (sub)",
            Refusal::UserinfoSubject => "it names somebody else (sub) than the userinfo endpoint does for its log-in",
            Refusal::LoggedOut => "it is of a log-in that the person has logged out of at the provider since",
            Refusal::Event => "it tells of no log-out (events)",
            Refusal::NonceThere => "it has a nonce, which tokens of log-ins have and those of log-outs must not",
            Refusal::Nobody => "it names neither a person nor a session (sub, sid)",
            Refusal::TokenId => "it has no name of its own (jti) by which it would count once",
            Refusal::Old => "it was issued too long ago (iat)",
            Refusal::Seen => "it came before (jti)",
        }
    }

    /// What whoever logs in hears.
    pub(crate) fn problem(self) -> Problem {
        if self == Refusal::Code {
            let words = "the provider does not take the code: it was used, has expired or is of another log-in; begin again";
            return Problem::new(codes::STAFF_CODE_REFUSED, words).field("code");
        }
        Problem::new(codes::ID_TOKEN_REFUSED, format!("the token that the provider answered is refused: {}", self.words()))
    }

    /// What the provider hears that tells of a log-out.
    pub(crate) fn of_log_out(self) -> Problem {
        let words = format!("the log-out token is refused: {}", self.words());
        Problem::new(codes::LOG_OUT_TOKEN_REFUSED, words).field("logout_token")
    }
}
