//! The two worlds as wasmtime spells them.

pub(crate) mod tagger {
    //! World `tagger`.
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "tagger",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

pub(crate) mod benefit_rule {
    //! World `benefit-rule`.
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "benefit-rule",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

/// The interface that a tagger exports.
pub(crate) const TAGGING: &str = "heyuan:plugins/tagging@0.1.0";
/// The interface that a benefit rule exports.
pub(crate) const BENEFITS: &str = "heyuan:plugins/benefits@0.1.0";
/// The one interface that a plugin may import.
pub(crate) const LOG: &str = "heyuan:plugins/log@0.1.0";
