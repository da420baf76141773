//! Write a benefit rule: a struct of counters that it reads, and a function from a transaction to effects.
//!
//! ```
//! use heyuan_benefit_rule::{Counters, Effect, Input};
//!
//! #[derive(Counters)]
//! struct Granted {
//!     #[reads("rule.points_this_month")]
//!     this_month: Option<i64>,
//! }
//!
//! /// Ten points for every hotel stay, fifty a month at most.
//! #[heyuan_benefit_rule::benefit_rule(name = "stay-bonus", answers(points))]
//! fn decide(input: &Input, granted: &Granted) -> Result<Vec<Effect>, String> {
//!     if input.transaction.line != "hotel" || granted.this_month.unwrap_or(0) > 40 {
//!         return Ok(Vec::new());
//!     }
//!     Ok(vec![Effect::points(10, "thank you for your stay")])
//! }
//! # fn main() {}
//! ```
//!
//! A counter is `Option<i64>`, `Option<Ratio>` or `Option<&str>`; absent is `None`. There are no floats here on purpose: what
//! moves money is integers and exact ratios. `reads(member, order_lines)` asks for those parts of the input, which arrive empty
//! otherwise; `answers(…)` names the kinds of effects. The rule sees no clock: `input.now_ms` and `input.transaction.local_time`
//! are what it knows of time, and the same input gives the same answer for ever.

pub use heyuan_plugin_macros::{Counters, benefit_rule};

#[doc(hidden)]
pub mod bindings {
    //! The world as wit-bindgen spells it.
    wit_bindgen::generate!({
        path: "../../../wit",
        world: "benefit-rule",
        pub_export_macro: true,
        default_bindings_module: "heyuan_benefit_rule::bindings",
    });
}

pub use bindings::exports::heyuan::plugins::benefits::{
    Change, Description, Effect, EffectKinds, Feature as FeatureDeclaration, FeatureKind, FeatureValue, Input, LocalTime, Member,
    OrderLines, Parts, Ratio, Transaction,
};

/// A type that a field of a `Counters` struct can have.
pub trait Counter<'a>: Sized {
    const KIND: FeatureKind;

    fn read(value: Option<&'a FeatureValue>, name: &str) -> Result<Self, String>;
}

/// A struct of counters; `#[derive(Counters)]` writes this.
pub trait Counters<'a>: Sized {
    fn reads() -> Vec<FeatureDeclaration>;
    fn read(values: &'a [FeatureValue]) -> Result<Self, String>;
}

macro_rules! counter {
    ($($ty:ty, $kind:ident, $pattern:pat => $value:expr;)*) => {$(
        impl<'a> Counter<'a> for Option<$ty> {
            const KIND: FeatureKind = FeatureKind::$kind;

            fn read(value: Option<&'a FeatureValue>, name: &str) -> Result<Self, String> {
                match value {
                    None | Some(FeatureValue::Absent) => Ok(None),
                    Some($pattern) => Ok(Some($value)),
                    Some(other) => Err(format!("feature {name} came as {other:?}")),
                }
            }
        }
    )*};
}

counter! {
    i64, Integer, FeatureValue::Integer(value) => *value;
    Ratio, Ratio, FeatureValue::Ratio(value) => *value;
    &'a str, Text, FeatureValue::Text(value) => value.as_str();
}

impl Effect {
    fn new(change: Change, reason: &str) -> Self {
        Self { change, reason: reason.to_owned() }
    }

    /// Growth value on top of the earn rules; may be negative.
    pub fn growth(growth: i64, reason: &str) -> Self {
        Self::new(Change::Growth(growth), reason)
    }

    /// Points on top of the earn rules.
    pub fn points(points: i64, reason: &str) -> Self {
        Self::new(Change::Points(points), reason)
    }

    pub fn benefit(code: &str, reason: &str) -> Self {
        Self::new(Change::Benefit(code.to_owned()), reason)
    }

    pub fn voucher(code: &str, reason: &str) -> Self {
        Self::new(Change::Voucher(code.to_owned()), reason)
    }

    /// Fen off what is paid.
    pub fn discount(fen: i64, reason: &str) -> Self {
        Self::new(Change::Discount(fen), reason)
    }
}

impl Ratio {
    /// This ratio of `amount`, rounded towards zero; `None` when it doesn't fit or the denominator isn't above zero.
    pub fn of(self, amount: i64) -> Option<i64> {
        if self.denominator <= 0 {
            return None;
        }
        let product = i128::from(self.numerator) * i128::from(amount);
        i64::try_from(product / i128::from(self.denominator)).ok()
    }
}

impl OrderLines {
    /// The text behind a code of `products`, `categories` or `merchants`.
    pub fn text(&self, code: u32) -> Option<&str> {
        let place = (code as usize).checked_sub(1)?;
        self.dictionary.get(place).map(String::as_str)
    }
}

/// Keeps a line for the plugin's author, up to the host's limit of bytes a call.
pub fn log(line: &str) {
    line.chars().chain(['\n']).for_each(bindings::heyuan::plugins::log::put);
}

#[doc(hidden)]
pub fn start() {
    // Natively, in an author's unit tests, a panic is told as usual.
    #[cfg(target_arch = "wasm32")]
    heyuan_plugin_guest::report_panics(log);
}
