//! The function that is the plugin.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{
    Error, Expr, ExprLit, FnArg, Ident, ItemFn, Lit, LitInt, LitStr, Meta, Result, ReturnType, Token, Type, parse::Parser,
    punctuated::Punctuated,
};

#[derive(Default)]
struct Arguments {
    name: Option<LitStr>,
    refresh_seconds: Option<LitInt>,
    reads: Vec<Ident>,
    answers: Vec<Ident>,
}

fn arguments(tokens: TokenStream, known: &[&str]) -> Result<Arguments> {
    let mut arguments = Arguments::default();
    for meta in Punctuated::<Meta, Token![,]>::parse_terminated.parse2(tokens)? {
        let key = meta.path().require_ident()?.to_string();
        if !known.contains(&key.as_str()) {
            return Err(Error::new_spanned(&meta, format!("unknown argument `{key}`; known are {}", known.join(", "))));
        }
        match (key.as_str(), &meta) {
            ("name", Meta::NameValue(pair)) => match &pair.value {
                Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => arguments.name = Some(text.clone()),
                other => return Err(Error::new_spanned(other, "a name is a text")),
            },
            ("refresh_seconds", Meta::NameValue(pair)) => match &pair.value {
                Expr::Lit(ExprLit { lit: Lit::Int(number), .. }) => arguments.refresh_seconds = Some(number.clone()),
                other => return Err(Error::new_spanned(other, "refresh_seconds is a whole number")),
            },
            ("reads" | "answers", Meta::List(list)) => {
                let idents = list.parse_args_with(Punctuated::<Ident, Token![,]>::parse_terminated)?;
                let place = if key == "reads" { &mut arguments.reads } else { &mut arguments.answers };
                place.extend(idents);
            }
            _ => return Err(Error::new_spanned(&meta, format!("`{key}` is spelt otherwise"))),
        }
    }
    Ok(arguments)
}

/// The type behind the reference of an argument.
fn referred(function: &ItemFn, place: usize) -> Result<&Type> {
    match function.sig.inputs.iter().nth(place) {
        Some(FnArg::Typed(argument)) => match &*argument.ty {
            Type::Reference(reference) => Ok(&reference.elem),
            other => Err(Error::new_spanned(other, "this argument is taken by reference")),
        },
        _ => Err(Error::new_spanned(&function.sig, format!("this function lacks argument {}", place + 1))),
    }
}

/// The first line of the doc comment.
fn summary(function: &ItemFn) -> Result<String> {
    function
        .attrs
        .iter()
        .filter(|attribute| attribute.path().is_ident("doc"))
        .find_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) => match &pair.value {
                Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value().trim().to_owned()),
                _ => None,
            },
            _ => None,
        })
        .filter(|text| !text.is_empty())
        .ok_or_else(|| Error::new_spanned(&function.sig, "say in a doc comment what this plugin decides; people approve it by that line"))
}

fn name(arguments: &Arguments) -> Result<&LitStr> {
    arguments.name.as_ref().ok_or_else(|| Error::new(proc_macro2::Span::call_site(), "name = \"…\" is missing"))
}

pub(crate) fn tagger(tokens: TokenStream, function: &ItemFn) -> Result<TokenStream> {
    let arguments = arguments(tokens, &["name", "refresh_seconds"])?;
    let (name, summary, features) = (name(&arguments)?, summary(function)?, referred(function, 0)?);
    let refresh = arguments.refresh_seconds.as_ref().map_or_else(|| quote!(0), |number| quote!(#number));
    let ReturnType::Type(_, answer) = &function.sig.output else {
        return Err(Error::new_spanned(&function.sig, "a tagger's function answers a struct of tags"));
    };
    let decide = &function.sig.ident;
    let plugin = format_ident!("HeyuanTagger");
    Ok(quote! {
        #function

        #[doc(hidden)]
        pub struct #plugin;

        impl ::heyuan_tagger::bindings::exports::heyuan::plugins::tagging::Guest for #plugin {
            fn describe() -> ::heyuan_tagger::Description {
                ::heyuan_tagger::start();
                ::heyuan_tagger::Description {
                    name: ::std::string::String::from(#name),
                    summary: ::std::string::String::from(#summary),
                    reads: <#features as ::heyuan_tagger::Features>::reads(),
                    writes: <<#answer as ::heyuan_tagger::IntoTags>::Tags as ::heyuan_tagger::Tags>::writes(),
                    refresh_seconds: #refresh,
                }
            }

            fn evaluate(
                batch: ::heyuan_tagger::Batch,
            ) -> ::std::result::Result<::std::vec::Vec<::heyuan_tagger::TagColumn>, ::std::string::String> {
                ::heyuan_tagger::start();
                let rows = batch.rows as usize;
                let moment = ::heyuan_tagger::Moment { now_ms: batch.now_ms, utc_offset_seconds: batch.utc_offset_seconds };
                let columns = <#features as ::heyuan_tagger::Features>::columns(&mut ::heyuan_tagger::Cursor::new(&batch))?;
                let mut answers = <<#answer as ::heyuan_tagger::IntoTags>::Tags as ::heyuan_tagger::Tags>::columns(rows);
                for row in 0..rows {
                    let customer = <#features as ::heyuan_tagger::Features>::row(&columns, row);
                    let tags = ::heyuan_tagger::IntoTags::into_tags(#decide(&customer, moment))?;
                    ::heyuan_tagger::Tags::write(tags, &mut answers, row);
                }
                ::std::result::Result::Ok(
                    <<#answer as ::heyuan_tagger::IntoTags>::Tags as ::heyuan_tagger::Tags>::finish(answers),
                )
            }
        }

        #[cfg(target_arch = "wasm32")]
        ::heyuan_tagger::bindings::export!(#plugin with_types_in ::heyuan_tagger::bindings);
    })
}

pub(crate) fn benefit_rule(tokens: TokenStream, function: &ItemFn) -> Result<TokenStream> {
    let arguments = arguments(tokens, &["name", "reads", "answers"])?;
    let (name, summary, counters) = (name(&arguments)?, summary(function)?, referred(function, 1)?);
    let flags = |idents: &[Ident]| -> Vec<Ident> {
        idents.iter().map(|ident| Ident::new(&ident.to_string().to_uppercase(), ident.span())).collect()
    };
    let (parts, effects) = (flags(&arguments.reads), flags(&arguments.answers));
    let decide = &function.sig.ident;
    let plugin = format_ident!("HeyuanBenefitRule");
    Ok(quote! {
        #function

        #[doc(hidden)]
        pub struct #plugin;

        impl ::heyuan_benefit_rule::bindings::exports::heyuan::plugins::benefits::Guest for #plugin {
            fn describe() -> ::heyuan_benefit_rule::Description {
                ::heyuan_benefit_rule::start();
                ::heyuan_benefit_rule::Description {
                    name: ::std::string::String::from(#name),
                    summary: ::std::string::String::from(#summary),
                    reads: <#counters as ::heyuan_benefit_rule::Counters>::reads(),
                    parts: ::heyuan_benefit_rule::Parts::empty() #(| ::heyuan_benefit_rule::Parts::#parts)*,
                    effects: ::heyuan_benefit_rule::EffectKinds::empty() #(| ::heyuan_benefit_rule::EffectKinds::#effects)*,
                }
            }

            fn decide(
                input: ::heyuan_benefit_rule::Input,
            ) -> ::std::result::Result<::std::vec::Vec<::heyuan_benefit_rule::Effect>, ::std::string::String> {
                ::heyuan_benefit_rule::start();
                let counters = <#counters as ::heyuan_benefit_rule::Counters>::read(&input.features)?;
                #decide(&input, &counters)
            }
        }

        #[cfg(target_arch = "wasm32")]
        ::heyuan_benefit_rule::bindings::export!(#plugin with_types_in ::heyuan_benefit_rule::bindings);
    })
}
