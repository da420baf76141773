//! Exact shares of money: a discount over lines by largest remainder, and the part of a line that a refund gives back.

use heyuan_contract::{Fen, MoneyError, Ratio};

/// Splits `discount` over amounts in proportion to them, to the fen, by largest remainder (equal remainders: the earlier first).
/// The shares add up to `discount`, and none is larger than its amount as long as the discount is not larger than the whole.
pub fn prorate(discount: Fen, amounts: &[Fen]) -> Vec<Fen> {
    let whole: i128 = amounts.iter().map(|amount| i128::from(amount.0)).sum();
    if whole <= 0 {
        return vec![Fen(0); amounts.len()];
    }
    let exact: Vec<i128> = amounts.iter().map(|amount| i128::from(discount.0) * i128::from(amount.0)).collect();
    let mut shares: Vec<i64> = exact.iter().map(|part| i64::try_from(part.div_euclid(whole)).unwrap_or(i64::MAX)).collect();
    let given: i128 = shares.iter().map(|share| i128::from(*share)).sum();
    let missing = usize::try_from(i128::from(discount.0) - given).unwrap_or(0);
    let mut order: Vec<usize> = (0..amounts.len()).collect();
    order.sort_by_key(|index| std::cmp::Reverse(exact[*index].rem_euclid(whole)));
    for index in order.into_iter().take(missing) {
        shares[index] += 1;
    }
    shares.into_iter().map(Fen).collect()
}

/// What has been given back of a line worth `amount` once `returned` of its `quantity` pieces are back. Refunds take differences of
/// it, so that they add up to the amount whatever their order and size.
pub(crate) fn given_back(amount: Fen, quantity: i64, returned: i64) -> Fen {
    let part = i128::from(amount.0) * i128::from(returned) / i128::from(quantity.max(1));
    Fen(i64::try_from(part).unwrap_or(amount.0))
}

/// The mall's commission on what was kept of an order, rounded down; a refund takes back the difference of two such figures.
pub(crate) fn commission(kept: Fen, rate: Ratio) -> Result<Fen, MoneyError> {
    rate.floor_of(kept.0).map(Fen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, RngSeed};

    fn check(discount: i64, amounts: &[i64], expected: &[i64]) {
        let amounts: Vec<Fen> = amounts.iter().copied().map(Fen).collect();
        let shares: Vec<i64> = prorate(Fen(discount), &amounts).into_iter().map(|share| share.0).collect();
        assert_eq!(shares, expected, "{discount} over {amounts:?}");
    }

    #[test]
    fn discounts_split_by_largest_remainder() {
        check(299, &[4300, 1400, 2300], &[161, 52, 86]);
        check(299, &[1000, 1000, 1000], &[100, 100, 99]);
        check(0, &[5, 5], &[0, 0]);
        check(10, &[5, 5], &[5, 5]);
        check(1, &[0, 3], &[0, 1]);
        check(7, &[], &[]);
        check(0, &[0, 0], &[0, 0]);
    }

    fn seeded(seed: u64) -> Config {
        Config {
            cases: 512,
            rng_algorithm: RngAlgorithm::ChaCha,
            rng_seed: RngSeed::Fixed(seed),
            failure_persistence: None,
            ..Config::default()
        }
    }

    proptest! {
        #![proptest_config(seeded(20_261_122))]

        #[test]
        fn shares_add_up_and_never_exceed_their_amount(amounts in prop::collection::vec(0i64..10_000_000_000_000, 1..50), part in 0u32..=1000) {
            let whole: i64 = amounts.iter().sum();
            let discount = i64::try_from(i128::from(whole) * i128::from(part) / 1000).unwrap_or(0);
            let fen: Vec<Fen> = amounts.iter().copied().map(Fen).collect();
            let shares = prorate(Fen(discount), &fen);
            prop_assert_eq!(shares.iter().map(|share| share.0).sum::<i64>(), discount);
            for (share, amount) in shares.iter().zip(&fen) {
                prop_assert!(share >= &Fen(0) && share <= amount);
            }
        }

        #[test]
        fn partial_refunds_add_up_to_the_amount(amount in 0i64..1_000_000_000, pieces in prop::collection::vec(1i64..50, 1..20)) {
            let quantity: i64 = pieces.iter().sum();
            let (mut back, mut returned) = (0, 0);
            for piece in pieces {
                let after = given_back(Fen(amount), quantity, returned + piece).0;
                let step = after - given_back(Fen(amount), quantity, returned).0;
                prop_assert!(step >= 0);
                back += step;
                returned += piece;
            }
            prop_assert_eq!(back, amount);
        }
    }
}
