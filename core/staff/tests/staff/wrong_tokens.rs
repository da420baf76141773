//! Tokens that are not to be believed, each refused with what is wrong with it.

use crate::world::{code, world};
use heyuan_harness::for_both_databases;
use heyuan_staff::simulator::{KeyKind, OidcMisbehaviour, TokenFault};

#[tokio::test]
async fn each_wrong_token_is_refused_and_its_reason_audited() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        for kind in [KeyKind::Es256, KeyKind::Rs256] {
            world.simulator.rotate(kind);
            world.misbehaves(TokenFault::None);
            world.logs_in("li").await.expect("a right token is believed");
            let before = world.reasons().await.len();
            let cases = [
                (TokenFault::WrongNonce, "nonce"),
                (TokenFault::NoNonce, "nonce"),
                (TokenFault::Expired, "expired"),
                (TokenFault::NotYet, "not_yet"),
                (TokenFault::WrongAudience, "audience"),
                (TokenFault::ManyAudiences, "audience"),
                (TokenFault::WrongParty, "audience"),
                (TokenFault::WrongIssuer, "issuer"),
                (TokenFault::NoSubject, "subject"),
                (TokenFault::NoExpiry, "claims"),
                (TokenFault::AlgorithmNone, "unsigned"),
                (TokenFault::AlgorithmHmac, "unsigned"),
                (TokenFault::Forged, "signature"),
                (TokenFault::UnknownKey, "unknown_key"),
                (TokenFault::Changed, "signature"),
                (TokenFault::Garbled, "unsigned"),
            ];
            let mut said = Vec::new();
            for (fault, reason) in cases {
                world.misbehaves(fault);
                let refused = world.logs_in("li").await.expect_err("it is refused");
                assert_eq!(refused.code().code, "id_token_refused", "{fault:?}");
                assert!(
                    refused.detail().starts_with("the token that the provider answered is refused: it"),
                    "{fault:?}: {}",
                    refused.detail()
                );
                said.push((fault, reason, refused.detail().to_owned()));
            }
            let reasons = world.reasons().await.split_off(before);
            assert_eq!(reasons, cases.map(|(_, reason)| reason), "{kind:?}");
            // Each reason has words of its own.
            for (fault, reason, words) in &said {
                let same: Vec<_> = said.iter().filter(|(_, other, _)| other == reason).collect();
                assert!(said.iter().filter(|(_, _, other)| other == words).count() == same.len(), "{fault:?}");
            }
        }
        assert_eq!(world.count("kernel_session").await, 2, "the two that were right");
    })
    .await;
}

#[tokio::test]
async fn a_providers_clock_may_be_a_minute_off() {
    for_both_databases(async |database| {
        let world = world(&database).await;
        // A token is good for five minutes.
        for (clock_ahead_s, expected) in [(60, None), (-359, None), (61, Some("not_yet")), (-360, Some("expired"))] {
            world.simulator.misbehave(OidcMisbehaviour { clock_ahead_s, ..OidcMisbehaviour::default() });
            let before = world.reasons().await.len();
            let answer = world.logs_in("li").await;
            match expected {
                None => assert!(answer.is_ok(), "{clock_ahead_s}: {answer:?}"),
                Some(reason) => {
                    assert_eq!(code(answer), "id_token_refused", "{clock_ahead_s}");
                    assert_eq!(world.reasons().await.split_off(before), [reason], "{clock_ahead_s}");
                }
            }
        }
    })
    .await;
}
