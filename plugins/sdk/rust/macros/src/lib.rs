//! The annotations of the plugin SDK: what turns a struct and a function into a component.

mod features;
mod rule;
mod tags;

use proc_macro::TokenStream;
use syn::{DeriveInput, ItemFn, parse_macro_input};

fn expand(result: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    result.unwrap_or_else(syn::Error::into_compile_error).into()
}

/// A struct whose fields are a tagger's features, each with `#[reads("…")]` as the tenant spells it.
#[proc_macro_derive(Features, attributes(reads))]
pub fn features(input: TokenStream) -> TokenStream {
    expand(features::tagger(&parse_macro_input!(input as DeriveInput)))
}

/// A struct whose fields are a benefit rule's features, each with `#[reads("…")]` as the tenant spells it.
#[proc_macro_derive(Counters, attributes(reads))]
pub fn counters(input: TokenStream) -> TokenStream {
    expand(features::benefit_rule(&parse_macro_input!(input as DeriveInput)))
}

/// A struct whose fields are tags, each with `#[tag("name")]`.
#[proc_macro_derive(Tags, attributes(tag))]
pub fn tags(input: TokenStream) -> TokenStream {
    expand(tags::tags(&parse_macro_input!(input as DeriveInput)))
}

/// An enum whose variants are the values of a text tag: the variant's name in snake_case, or `#[text("…")]`.
#[proc_macro_derive(TagText, attributes(text))]
pub fn tag_text(input: TokenStream) -> TokenStream {
    expand(tags::tag_text(&parse_macro_input!(input as DeriveInput)))
}

/// Makes the crate a tagger: `#[tagger(name = "…", refresh_seconds = 86400)]` on `fn(&Features, Moment) -> Tags`.
/// The first line of the function's doc comment is the summary. Without `refresh_seconds`, time alone changes nothing.
#[proc_macro_attribute]
pub fn tagger(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(rule::tagger(arguments.into(), &parse_macro_input!(item as ItemFn)))
}

/// Makes the crate a benefit rule: `#[benefit_rule(name = "…", reads(member, order_lines), answers(points))]` on
/// `fn(&Input, &Counters) -> Result<Vec<Effect>, String>`. The first line of the function's doc comment is the summary.
#[proc_macro_attribute]
pub fn benefit_rule(arguments: TokenStream, item: TokenStream) -> TokenStream {
    expand(rule::benefit_rule(arguments.into(), &parse_macro_input!(item as ItemFn)))
}
