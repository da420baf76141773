//! Write a tagger: a struct of features, a struct of tags, and a function between them.
//!
//! ```
//! use heyuan_tagger::{Features, Moment, Tags, TagText};
//!
//! #[derive(Features)]
//! struct Visitor<'a> {
//!     #[reads("count(unit_viewed) over 7d")]
//!     units_viewed: Option<f64>,
//!     #[reads("last(unit_viewed.unit_type)")]
//!     last_type: Option<&'a str>,
//! }
//!
//! #[derive(TagText)]
//! enum Interest {
//!     Cold,
//!     Warm,
//! }
//!
//! #[derive(Tags)]
//! struct Verdict {
//!     #[tag("viewing_interest")]
//!     interest: Interest,
//! }
//!
//! /// Who looked at units this week.
//! #[heyuan_tagger::tagger(name = "viewing-interest", refresh_seconds = 3600)]
//! fn tag(visitor: &Visitor, _moment: Moment) -> Verdict {
//!     let warm = visitor.units_viewed.unwrap_or(0.0) >= 3.0 && visitor.last_type.is_some();
//!     Verdict { interest: if warm { Interest::Warm } else { Interest::Cold } }
//! }
//! # fn main() {}
//! ```
//!
//! A feature is `Option<f64>` (flags read as 1 or 0) or `Option<&str>`; absent is `None`. A tag is `bool`, `f64`, `String`,
//! `&'static str` or an enum with `#[derive(TagText)]`, or an `Option` of these, where `None` leaves the customer without the
//! tag. The function may answer `Result<_, String>`; an error fails the row with your message. The answer for a row depends on
//! that row and the moment alone: every call runs in a fresh instance, so statics keep nothing.

mod read;
mod write;

pub use heyuan_plugin_macros::{Features, TagText, Tags, tagger};
pub use read::{Cursor, Feature, Features, NumberReader, TextReader};
pub use write::{Codes, Flags, IntoTags, Numbers, TagField, TagText, Tags, Texts};

#[doc(hidden)]
pub mod bindings {
    //! The world as wit-bindgen spells it.
    wit_bindgen::generate!({
        path: "../../../wit",
        world: "tagger",
        pub_export_macro: true,
        default_bindings_module: "heyuan_tagger::bindings",
    });
}

pub use bindings::exports::heyuan::plugins::tagging::{
    Batch, Description, Feature as FeatureDeclaration, FeatureKind, FlagColumn, NumberColumn, Tag as TagDeclaration, TagColumn, TagKind,
    TextColumn,
};

/// The moment for which tags are asked; the only time that a tagger knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Milliseconds since 1970, UTC.
    pub now_ms: i64,
    /// What to add to UTC for the tenant's local time.
    pub utc_offset_seconds: i32,
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
