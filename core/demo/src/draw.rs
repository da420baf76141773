//! Seeded streams of chance, one for each purpose, the same on every machine.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{Rng, SeedableRng};

/// What a stream is for. Streams never influence one another, so identifiers say nothing about the people behind them.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    People = 1,
    Behaviour,
    Transport,
    Messages,
    Devices,
    Members,
    WeChat,
    Phones,
    Plates,
    Records,
    Catalogue,
    Advertising,
    Tills,
    Faults,
}

/// A stream of random numbers. Integers only: the floating-point functions of a platform's library may differ in the last bit.
pub(crate) struct Draw(Xoshiro256PlusPlus);

impl Draw {
    pub(crate) fn new(seed: u64, purpose: Purpose) -> Self {
        let mut state = scatter(seed ^ scatter(purpose as u64));
        let mut bytes = [0_u8; 32];
        for chunk in bytes.chunks_exact_mut(8) {
            state = scatter(state);
            chunk.copy_from_slice(&state.to_le_bytes());
        }
        Self(Xoshiro256PlusPlus::from_seed(bytes))
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `0..limit`; zero for a limit of zero.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(limit)) >> 64) as u64
    }

    /// A number in `low..=high`.
    pub(crate) fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1).max(1) as u64) as i64
    }

    /// True in `per_mille` of a thousand cases.
    pub(crate) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub(crate) fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    /// An index, each as likely as its weight.
    pub(crate) fn weighted(&mut self, weights: &[u32]) -> usize {
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        let mut left = self.below(total);
        for (index, weight) in weights.iter().enumerate() {
            let weight = u64::from(*weight);
            if left < weight {
                return index;
            }
            left -= weight;
        }
        weights.len() - 1
    }

    /// A count around a mean given in thousandths, between a third and five thirds of it.
    pub(crate) fn count(&mut self, mean_milli: u64) -> u64 {
        let scaled = mean_milli * self.between(330, 1670) as u64 / 1000;
        scaled / 1000 + u64::from(self.chance(scaled % 1000))
    }

    pub(crate) fn hexadecimal(&mut self, digits: usize) -> String {
        let mut text = String::with_capacity(digits);
        while text.len() < digits {
            let bits = self.bits();
            for shift in 0..16.min(digits - text.len()) {
                text.push(char::from(b"0123456789abcdef"[(bits >> (shift * 4)) as usize & 15]));
            }
        }
        text
    }

    /// Letters, digits, `-` and `_`, as media platforms spell click ids and WeChat its openids.
    pub(crate) fn token(&mut self, length: usize) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        (0..length).map(|_| char::from(ALPHABET[self.below(64) as usize])).collect()
    }

    pub(crate) fn digits(&mut self, length: usize) -> String {
        (0..length).map(|place| char::from(b'0' + if place == 0 { 1 + self.below(9) } else { self.below(10) } as u8)).collect()
    }

    pub(crate) fn uuid(&mut self) -> Uuid {
        let mut bytes = [0_u8; 16];
        bytes[..8].copy_from_slice(&self.bits().to_le_bytes());
        bytes[8..].copy_from_slice(&self.bits().to_le_bytes());
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Uuid(bytes)
    }
}

/// Sixteen random bytes in the form of a version 4 UUID.
#[derive(Clone, Copy)]
pub(crate) struct Uuid([u8; 16]);

impl std::fmt::Display for Uuid {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = [b'-'; 36];
        let mut place = 0;
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                place += 1;
            }
            text[place] = b"0123456789abcdef"[usize::from(byte >> 4)];
            text[place + 1] = b"0123456789abcdef"[usize::from(byte & 15)];
            place += 2;
        }
        formatter.write_str(std::str::from_utf8(&text).map_err(|_| std::fmt::Error)?)
    }
}

impl serde::Serialize for Uuid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Hands out numbers below a limit in a random order, none twice: a Feistel network walked until it lands inside.
pub(crate) struct Unrepeated {
    keys: [u64; 6],
    next: u32,
    limit: u32,
}

impl Unrepeated {
    pub(crate) fn new(draw: &mut Draw, limit: u32) -> Self {
        Self { keys: std::array::from_fn(|_| draw.bits()), next: 0, limit }
    }

    /// The next number. It begins again after all, far beyond the number of customers that a configuration may ask for.
    pub(crate) fn take(&mut self) -> u32 {
        loop {
            let value = self.permuted(self.next);
            self.next = self.next.wrapping_add(1);
            if value < self.limit {
                return value;
            }
        }
    }

    fn permuted(&self, value: u32) -> u32 {
        let (mut left, mut right) = (value >> 16, value & 0xffff);
        for key in self.keys {
            let mixed = scatter(key ^ u64::from(right)) as u32 & 0xffff;
            (left, right) = (right, left ^ mixed);
        }
        left << 16 | right
    }
}

/// The finaliser of SplitMix64.
fn scatter(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
