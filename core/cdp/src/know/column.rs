//! One feature of all customers, bit by bit: slices of 65,536 rows, so that a range over ten million customers is a few million words
//! of and, or and not.

use super::predicate::{Edge, Test};
use super::value::{Number, Value};
use std::collections::HashMap;

/// Words of a block: 65,536 bits.
pub(crate) const WORDS: usize = 1024;
/// One bit a row.
pub(crate) type Block = Box<[u64; WORDS]>;
/// Billionths of one.
const ONE: i128 = 1_000_000_000;

pub(crate) fn empty() -> Block {
    Box::new([0; WORDS])
}

fn bit(row: u32) -> (usize, usize, u64) {
    let within = (row & 0xffff) as usize;
    ((row >> 16) as usize, within / 64, 1 << (within % 64))
}

/// Rows by chunk; a chunk that is not there is empty.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows(Vec<Option<Block>>);

impl Rows {
    pub(crate) fn set(&mut self, row: u32, is: bool) {
        let (chunk, word, mask) = bit(row);
        if !is {
            if let Some(Some(block)) = self.0.get_mut(chunk) {
                block[word] &= !mask;
            }
            return;
        }
        if self.0.len() <= chunk {
            self.0.resize(chunk + 1, None);
        }
        self.0[chunk].get_or_insert_with(empty)[word] |= mask;
    }

    fn get(&self, row: u32) -> bool {
        let (chunk, word, mask) = bit(row);
        self.chunk(chunk).is_some_and(|block| block[word] & mask != 0)
    }

    pub(crate) fn chunk(&self, chunk: usize) -> Option<&Block> {
        self.0.get(chunk).and_then(Option::as_ref)
    }

    pub(crate) fn chunks(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn put(&mut self, chunk: usize, block: Block) {
        if self.0.len() <= chunk {
            self.0.resize(chunk + 1, None);
        }
        self.0[chunk] = Some(block);
    }

    pub(crate) fn of(numbers: impl IntoIterator<Item = u32>) -> Rows {
        let mut rows = Rows::default();
        numbers.into_iter().for_each(|number| rows.set(number, true));
        rows
    }
}

/// Numbers in sign and magnitude, a slice a binary place.
#[derive(Debug, Clone, Default)]
struct Sliced {
    present: Rows,
    negative: Rows,
    slices: Vec<Rows>,
}

impl Sliced {
    fn set(&mut self, row: u32, value: Option<i128>) {
        let magnitude = value.map_or(0, i128::unsigned_abs);
        self.present.set(row, value.is_some());
        self.negative.set(row, value.is_some_and(|value| value < 0));
        let needed = (128 - magnitude.leading_zeros()) as usize;
        if self.slices.len() < needed {
            self.slices.resize_with(needed, Rows::default);
        }
        for (place, slice) in self.slices.iter_mut().enumerate() {
            slice.set(row, magnitude >> place & 1 == 1);
        }
    }

    fn get(&self, row: u32) -> Option<i128> {
        if !self.present.get(row) {
            return None;
        }
        let magnitude = self.slices.iter().enumerate().fold(0i128, |sum, (place, slice)| sum | (i128::from(slice.get(row)) << place));
        Some(if self.negative.get(row) { -magnitude } else { magnitude })
    }

    /// Rows whose magnitude is at least `least`, whatever their sign; absent rows may be among them.
    fn magnitude_at_least(&self, chunk: usize, least: u128) -> Block {
        let (mut above, mut equal) = (empty(), Box::new([u64::MAX; WORDS]));
        if least >> self.slices.len().min(127) > 0 {
            return above;
        }
        for (place, slice) in self.slices.iter().enumerate().rev() {
            match (slice.chunk(chunk), least >> place & 1 == 1) {
                (Some(slice), true) => equal.iter_mut().zip(slice.iter()).for_each(|(equal, slice)| *equal &= slice),
                (None, true) => equal.fill(0),
                (Some(slice), false) => {
                    for ((above, equal), slice) in above.iter_mut().zip(equal.iter_mut()).zip(slice.iter()) {
                        *above |= *equal & slice;
                        *equal &= !slice;
                    }
                }
                (None, false) => {}
            }
        }
        above.iter_mut().zip(equal.iter()).for_each(|(above, equal)| *above |= equal);
        above
    }

    /// Rows with a value of at least `least`.
    fn at_least(&self, chunk: usize, least: i128) -> Block {
        let Some(present) = self.present.chunk(chunk) else { return empty() };
        let negative = self.negative.chunk(chunk);
        let negative = |word: usize| negative.map_or(0, |block| block[word]);
        let mut found = if least > 0 {
            self.magnitude_at_least(chunk, least.unsigned_abs())
        } else {
            self.magnitude_at_least(chunk, least.unsigned_abs() + 1)
        };
        for (word, found) in found.iter_mut().enumerate() {
            // Above zero the magnitude must reach it; below, anything that is not negative enough does.
            *found = present[word] & if least > 0 { *found & !negative(word) } else { !(*found & negative(word)) };
        }
        found
    }

    /// The least and the greatest value of a chunk among some rows.
    fn extent(&self, chunk: usize, among: &Block) -> Option<(i128, i128)> {
        let mut rows = self.present.chunk(chunk)?.clone();
        cut(&mut rows, among);
        let negative = self.negative.chunk(chunk).cloned().unwrap_or_else(empty);
        let above = without(&rows, &negative);
        cut(&mut rows, &negative);
        match (ones(&rows) > 0, ones(&above) > 0) {
            (true, true) => Some((-self.farthest(chunk, rows), self.farthest(chunk, above))),
            (true, false) => Some((-self.farthest(chunk, rows.clone()), -self.nearest(chunk, rows))),
            (false, true) => Some((self.nearest(chunk, above.clone()), self.farthest(chunk, above))),
            (false, false) => None,
        }
    }

    /// The greatest magnitude among rows, of which there are some.
    fn farthest(&self, chunk: usize, mut rows: Block) -> i128 {
        let mut magnitude = 0;
        for (place, slice) in self.slices.iter().enumerate().rev() {
            let Some(slice) = slice.chunk(chunk) else { continue };
            let mut with = rows.clone();
            cut(&mut with, slice);
            if with.iter().any(|word| *word != 0) {
                magnitude |= 1 << place;
                rows = with;
            }
        }
        magnitude
    }

    /// The least magnitude among rows, of which there are some.
    fn nearest(&self, chunk: usize, mut rows: Block) -> i128 {
        let mut magnitude = 0;
        for (place, slice) in self.slices.iter().enumerate().rev() {
            let Some(slice) = slice.chunk(chunk) else { continue };
            let lacking = without(&rows, slice);
            if lacking.iter().any(|word| *word != 0) {
                rows = lacking
            } else {
                magnitude |= 1 << place
            };
        }
        magnitude
    }

    fn within(&self, chunk: usize, least: Option<i128>, most: Option<i128>) -> Block {
        let mut found = match least {
            Some(least) => self.at_least(chunk, least),
            None => self.present.chunk(chunk).cloned().unwrap_or_else(empty),
        };
        if let Some(most) = most {
            let beyond = self.at_least(chunk, most.saturating_add(1));
            found.iter_mut().zip(beyond.iter()).for_each(|(found, beyond)| *found &= !beyond);
        }
        found
    }
}

/// One feature of all customers: numbers as such, everything else by its place in a dictionary.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    numbers: Sliced,
    /// What a 1 in `numbers` stands for, in billionths: whole numbers until a fraction is met.
    unit: i128,
    codes: Sliced,
    dictionary: Vec<Value>,
    places: HashMap<Value, i128>,
}

impl Column {
    pub(crate) fn new() -> Column {
        Column { numbers: Sliced::default(), unit: ONE, codes: Sliced::default(), dictionary: Vec::new(), places: HashMap::new() }
    }

    /// Puts a row's value, or its absence, in place of what was there.
    pub(crate) fn set(&mut self, row: u32, value: Option<&Value>) {
        let number = match value {
            Some(Value::Number(number)) => Some(number.billionths()),
            Some(Value::Moment(ms)) => Some(i128::from(*ms).saturating_mul(ONE)),
            _ => None,
        };
        if number.is_some_and(|number| number % self.unit != 0) {
            self.refine();
        }
        let code = value.filter(|_| number.is_none()).map(|value| match self.places.get(value) {
            Some(place) => *place,
            None => {
                let place = self.dictionary.len() as i128;
                self.dictionary.push(value.clone());
                self.places.insert(value.clone(), place);
                place
            }
        });
        self.numbers.set(row, number.map(|number| number / self.unit));
        self.codes.set(row, code);
    }

    fn refine(&mut self) {
        let mut finer = Sliced::default();
        for row in 0..u32::try_from(self.numbers.present.chunks() << 16).unwrap_or(u32::MAX) {
            if let Some(number) = self.numbers.get(row) {
                finer.set(row, Some(number * self.unit));
            }
        }
        (self.numbers, self.unit) = (finer, 1);
    }

    /// Rows of a chunk that pass a test.
    pub(crate) fn passing(&self, chunk: usize, living: &Block, test: &Test) -> Block {
        match test {
            Test::Is(value) => self.equal(chunk, std::slice::from_ref(value)),
            Test::OneOf(values) => self.equal(chunk, values),
            Test::IsNot(value) => without(living, &self.equal(chunk, std::slice::from_ref(value))),
            Test::Exists(wanted) => {
                let there = self.there(chunk);
                if *wanted { there } else { without(living, &there) }
            }
            Test::Between { from, to } => {
                let least = from.map(|(number, edge)| self.first_from(number, edge));
                let most = to.map(|(number, edge)| self.last_to(number, edge));
                let mut found = self.numbers.within(chunk, least, most);
                // Tags that are numbers are kept as text.
                for (place, _) in self.dictionary.iter().enumerate().filter(|(_, value)| test.passes(Some(value))) {
                    merge(&mut found, &self.codes.within(chunk, Some(place as i128), Some(place as i128)));
                }
                found
            }
        }
    }

    fn first_from(&self, number: Number, edge: Edge) -> i128 {
        let floor = number.billionths().div_euclid(self.unit);
        let exact = number.billionths().rem_euclid(self.unit) == 0;
        if exact && edge == Edge::Within { floor } else { floor + 1 }
    }

    fn last_to(&self, number: Number, edge: Edge) -> i128 {
        let floor = number.billionths().div_euclid(self.unit);
        let exact = number.billionths().rem_euclid(self.unit) == 0;
        if exact && edge == Edge::Beyond { floor - 1 } else { floor }
    }

    fn there(&self, chunk: usize) -> Block {
        let mut there = self.numbers.present.chunk(chunk).cloned().unwrap_or_else(empty);
        if let Some(codes) = self.codes.present.chunk(chunk) {
            merge(&mut there, codes);
        }
        there
    }

    fn equal(&self, chunk: usize, values: &[Value]) -> Block {
        let mut found = empty();
        for value in values {
            match value {
                Value::Number(number) if number.billionths() % self.unit == 0 => {
                    let wanted = number.billionths() / self.unit;
                    merge(&mut found, &self.numbers.within(chunk, Some(wanted), Some(wanted)));
                }
                Value::Number(_) | Value::Moment(_) => {}
                other => {
                    if let Some(place) = self.places.get(other) {
                        merge(&mut found, &self.codes.within(chunk, Some(*place), Some(*place)));
                    }
                }
            }
        }
        found
    }

    /// The values that are no numbers, in the order in which they were met.
    pub(crate) fn words(&self) -> &[Value] {
        &self.dictionary
    }

    /// The least and the greatest number among some rows.
    pub(crate) fn extent(&self, among: &Rows) -> Option<(Number, Number)> {
        let chunks = 0..self.numbers.present.chunks();
        let found = chunks.filter_map(|chunk| self.numbers.extent(chunk, among.chunk(chunk)?));
        let extent = found.reduce(|(least, most), (lower, higher)| (least.min(lower), most.max(higher)));
        let number = |value: i128| Number::from_billionths(value.saturating_mul(self.unit));
        extent.map(|(least, most)| (number(least), number(most)))
    }
}

pub(crate) fn merge(into: &mut Block, more: &Block) {
    into.iter_mut().zip(more.iter()).for_each(|(into, more)| *into |= more);
}

pub(crate) fn cut(into: &mut Block, to: &Block) {
    into.iter_mut().zip(to.iter()).for_each(|(into, to)| *into &= to);
}

pub(crate) fn without(all: &Block, some: &Block) -> Block {
    let mut left = all.clone();
    left.iter_mut().zip(some.iter()).for_each(|(left, some)| *left &= !some);
    left
}

pub(crate) fn ones(block: &Block) -> u64 {
    block.iter().map(|word| u64::from(word.count_ones())).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_rows_that_a_walk_over_the_values_finds() {
        let number = |text: &str| Value::Number(Number::parse(text).expect("a number"));
        let values = [
            None,
            Some(number("0")),
            Some(number("-5")),
            Some(number("7")),
            Some(number("7.5")),
            Some(number("-0.25")),
            Some(number("1000000")),
            Some(Value::text("深圳")),
            Some(Value::text("12")),
            Some(Value::Flag(true)),
        ];
        let mut column = Column::new();
        // Rows of two chunks, written twice: the second value counts.
        let row_of = |place: usize| (place as u32) * 9_001;
        for place in 0..values.len() {
            column.set(row_of(place), Some(&number("99")));
        }
        for (place, value) in values.iter().enumerate() {
            column.set(row_of(place), value.as_ref());
        }
        let living = Rows::of((0..values.len()).map(row_of));
        let bounds = ["-6", "-5", "-0.25", "0", "0.1", "7", "7.25", "8", "2000000"].map(|text| Number::parse(text).expect("a number"));
        let mut tests =
            vec![Test::Exists(true), Test::Exists(false), Test::IsNot(number("7")), Test::OneOf(vec![number("0"), Value::text("深圳")])];
        tests.extend(values.iter().flatten().cloned().map(Test::Is));
        for bound in bounds {
            for edge in [Edge::Within, Edge::Beyond] {
                tests.push(Test::Between { from: Some((bound, edge)), to: None });
                tests.push(Test::Between { from: None, to: Some((bound, edge)) });
            }
        }
        for test in tests {
            for (place, value) in values.iter().enumerate() {
                let (chunk, word, mask) = bit(row_of(place));
                let living = living.chunk(chunk).expect("rows live there");
                let found = column.passing(chunk, living, &test)[word] & mask != 0;
                assert_eq!(found, test.passes(value.as_ref()), "{test:?} on {value:?}");
            }
        }
        for (rows, least, most) in [(0..values.len(), "-5", "1000000"), (2..3, "-5", "-5"), (3..5, "7", "7.5"), (5..6, "-0.25", "-0.25")] {
            let number = |text| Number::parse(text).expect("a number");
            assert_eq!(column.extent(&Rows::of(rows.map(row_of))), Some((number(least), number(most))));
        }
        assert_eq!(column.extent(&Rows::of([row_of(0), row_of(7)])), None);
    }
}
