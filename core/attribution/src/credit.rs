//! Credit for a result along its path, exactly: whole numbers of millionths that add up to one million per result.

/// The whole credit of one result, in millionths.
pub const MILLION: i64 = 1_000_000;

/// Who gets the credit along a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// The first touch of the path.
    First,
    /// The last touch of the path.
    Last,
    /// The last touch that is not direct; the last one when all are.
    LastNonDirect,
    /// Every touch alike; what a million does not divide into goes to the earliest, a millionth each.
    Linear,
}

impl Model {
    /// Every model.
    pub const ALL: [Model; 4] = [Model::First, Model::Last, Model::LastNonDirect, Model::Linear];

    /// The spelling in requests and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Model::First => "first",
            Model::Last => "last",
            Model::LastNonDirect => "last_non_direct",
            Model::Linear => "linear",
        }
    }

    /// The model with this spelling, if there is one.
    pub fn parse(text: &str) -> Option<Model> {
        Model::ALL.into_iter().find(|model| model.as_str() == text)
    }
}

/// A touch of a path: which channel, and whether it is direct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// When; milliseconds since 1970.
    pub at: i64,
    /// The touch's own number: the same touch is not counted twice.
    pub touch: u32,
    /// The channel's number.
    pub channel: u32,
    /// No ad and no campaign brought it.
    pub direct: bool,
}

/// Gives one result's million to the channels of its path, oldest touch first; `tied` is the touch whose click the lead itself
/// names, which counts once, as the last one. An empty path without such a touch gives the whole to `untouched`. Allocates nothing.
pub fn credit(model: Model, path: &[Step], tied: Option<Step>, untouched: u32, mut give: impl FnMut(u32, i64)) {
    let again = tied.map(|step| step.touch);
    let steps = || path.iter().filter(move |step| Some(step.touch) != again).chain(tied.iter());
    let length = steps().count();
    if length == 0 {
        give(untouched, MILLION);
        return;
    }
    match model {
        Model::First => steps().take(1).for_each(|step| give(step.channel, MILLION)),
        Model::Last => steps().next_back().into_iter().for_each(|step| give(step.channel, MILLION)),
        Model::LastNonDirect => {
            let step = steps().rev().find(|step| !step.direct).or_else(|| steps().next_back());
            step.into_iter().for_each(|step| give(step.channel, MILLION));
        }
        Model::Linear => {
            let count = i64::try_from(length).unwrap_or(i64::MAX);
            let (share, rest) = (MILLION / count, MILLION % count);
            for (index, step) in (0i64..).zip(steps()) {
                give(step.channel, share + i64::from(index < rest));
            }
        }
    }
}

/// The part of a customer's touches (oldest first) that lies in the window before an instant: touches at the instant itself count,
/// touches exactly a window old no more.
pub(crate) fn within(touches: &[Step], until: i64, window_ms: i64) -> &[Step] {
    let from = touches.partition_point(|touch| touch.at <= until.saturating_sub(window_ms));
    let to = touches.partition_point(|touch| touch.at <= until);
    touches.get(from..to).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, RngSeed};
    use std::collections::BTreeMap;

    const DIRECT: u32 = 0;

    fn step(at: i64, channel: u32) -> Step {
        Step { at, touch: u32::try_from(at).unwrap_or(u32::MAX), channel, direct: channel == DIRECT }
    }

    fn credits(model: Model, path: &[(i64, u32)], tied: Option<u32>) -> Vec<(u32, i64)> {
        let path: Vec<Step> = path.iter().map(|(at, channel)| step(*at, *channel)).collect();
        let mut given: BTreeMap<u32, i64> = BTreeMap::new();
        credit(model, &path, tied.map(|channel| step(99, channel)), DIRECT, |channel, part| *given.entry(channel).or_default() += part);
        given.into_iter().collect()
    }

    #[test]
    fn models_give_a_million_as_they_say() {
        use Model::{First, Last, LastNonDirect, Linear};
        for (model, path, tied, expected) in [
            (First, vec![], None, vec![(0, MILLION)]),
            (Linear, vec![], None, vec![(0, MILLION)]),
            (Linear, vec![], Some(7), vec![(7, MILLION)]),
            (First, vec![(1, 1), (2, 2), (3, 0)], None, vec![(1, MILLION)]),
            (Last, vec![(1, 1), (2, 2), (3, 0)], None, vec![(0, MILLION)]),
            (LastNonDirect, vec![(1, 1), (2, 2), (3, 0)], None, vec![(2, MILLION)]),
            (LastNonDirect, vec![(1, 0), (2, 0)], None, vec![(0, MILLION)]),
            (Linear, vec![(1, 1), (2, 2), (3, 0)], None, vec![(0, 333_333), (1, 333_334), (2, 333_333)]),
            (Linear, vec![(1, 1), (2, 1)], Some(2), vec![(1, 666_667), (2, 333_333)]),
            (Last, vec![(1, 1), (2, 3)], Some(2), vec![(2, MILLION)]),
            (First, vec![(1, 1), (2, 3)], Some(2), vec![(1, MILLION)]),
            // The tied touch stands in the path too: it counts once, and last.
            (Linear, vec![(99, 2), (100, 1)], Some(2), vec![(1, 500_000), (2, 500_000)]),
            (Last, vec![(99, 2), (100, 1)], Some(2), vec![(2, MILLION)]),
        ] {
            assert_eq!(credits(model, &path, tied), expected, "{model:?} over {path:?} and {tied:?}");
        }
    }

    #[test]
    fn paths_end_at_the_instant_and_begin_after_a_window() {
        let touches: Vec<Step> = [(10, 1), (20, 2), (20, 3), (30, 4)].into_iter().map(|(at, channel)| step(at, channel)).collect();
        for (until, window, expected) in [
            (20, 100, vec![1, 2, 3]),
            (20, 10, vec![2, 3]),
            (19, 100, vec![1]),
            (9, 100, vec![]),
            (99, 1000, vec![1, 2, 3, 4]),
            (40, 10, vec![]),
        ] {
            let path: Vec<u32> = within(&touches, until, window).iter().map(|step| step.channel).collect();
            assert_eq!(path, expected, "until {until}, a window of {window}");
        }
    }

    fn seeded() -> Config {
        let rng_seed = RngSeed::Fixed(20_261_122);
        Config { cases: 512, rng_algorithm: RngAlgorithm::ChaCha, rng_seed, failure_persistence: None, ..Config::default() }
    }

    proptest! {
        #![proptest_config(seeded())]

        #[test]
        fn every_result_gives_exactly_a_million(path in prop::collection::vec((0i64..1000, 0u32..12), 0..80), tied in prop::option::of(0u32..12)) {
            for model in Model::ALL {
                let given = credits(model, &path, tied);
                prop_assert_eq!(given.iter().map(|(_, part)| part).sum::<i64>(), MILLION);
                prop_assert!(given.iter().all(|(_, part)| *part > 0));
            }
        }
    }
}
