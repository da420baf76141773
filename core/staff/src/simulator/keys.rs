//! The keys that the simulated provider signs with, by the library of TLS and not by the one that checks.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};

/// What a key signs by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum KeyKind {
    /// RSA with 2048 bits.
    #[serde(rename = "RS256")]
    Rs256,
    /// The curve P-256.
    #[serde(rename = "ES256")]
    Es256,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

/// A key with its name.
pub(super) struct SigningKey {
    pub(super) name: String,
    pair: Pair,
}

impl SigningKey {
    /// A key from fresh randomness.
    pub(super) fn fresh(kind: KeyKind) -> SigningKey {
        let random: [u8; 8] = rand::random();
        let pair = match kind {
            KeyKind::Rs256 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).expect("an RSA key can be made")),
            KeyKind::Es256 => Pair::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key of P-256 can be made")),
        };
        SigningKey { name: URL_SAFE_NO_PAD.encode(random), pair }
    }

    pub(super) fn algorithm(&self) -> &'static str {
        match self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::Ec(_) => "ES256",
        }
    }

    /// The public half, as it is published.
    pub(super) fn published(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (name, algorithm) = (&self.name, self.algorithm());
        match &self.pair {
            Pair::Rsa(pair) => {
                let public = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({ "kty": "RSA", "use": "sig", "alg": algorithm, "kid": name, "n": text(&public.n), "e": text(&public.e) })
            }
            Pair::Ec(pair) => {
                // A byte that says that both coordinates follow, and 32 bytes of each.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": algorithm, "kid": name, "x": text(x), "y": text(y) })
            }
        }
    }

    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("the buffer has the key's length");
                signature
            }
            Pair::Ec(pair) => pair.sign(&random, message).expect("a key of P-256 signs anything").as_ref().to_vec(),
        }
    }
}
