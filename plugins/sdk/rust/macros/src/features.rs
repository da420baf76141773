//! Structs of features.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Field, Fields, Ident, LitStr, Result, Type};

/// The text of a field's `#[name("…")]`.
pub(crate) fn annotation(field: &Field, name: &str) -> Result<LitStr> {
    field
        .attrs
        .iter()
        .find(|attribute| attribute.path().is_ident(name))
        .map_or_else(|| Err(Error::new_spanned(field, format!("this field lacks #[{name}(\"…\")]"))), |attribute| attribute.parse_args())
}

pub(crate) fn named_fields(input: &DeriveInput) -> Result<Vec<&Field>> {
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => Ok(fields.named.iter().collect()),
            Fields::Unit => Ok(Vec::new()),
            Fields::Unnamed(_) => Err(Error::new_spanned(input, "name the fields of this struct")),
        },
        _ => Err(Error::new_spanned(input, "this needs a struct")),
    }
}

struct Parts<'a> {
    name: &'a Ident,
    idents: Vec<&'a Ident>,
    types: Vec<&'a Type>,
    spellings: Vec<LitStr>,
    /// The lifetime of the struct's text, or one of our own.
    lifetime: TokenStream,
    arguments: TokenStream,
}

fn parts(input: &DeriveInput) -> Result<Parts<'_>> {
    let fields = named_fields(input)?;
    let mut lifetimes = input.generics.lifetimes();
    let lifetime = match (lifetimes.next(), lifetimes.next(), input.generics.type_params().next()) {
        (None, None, None) => None,
        (Some(only), None, None) => Some(only.lifetime.clone()),
        _ => return Err(Error::new_spanned(&input.generics, "a struct of features has at most one lifetime and no other generics")),
    };
    Ok(Parts {
        name: &input.ident,
        idents: fields.iter().filter_map(|field| field.ident.as_ref()).collect(),
        types: fields.iter().map(|field| &field.ty).collect(),
        spellings: fields.iter().map(|field| annotation(field, "reads")).collect::<Result<_>>()?,
        arguments: lifetime.as_ref().map_or_else(TokenStream::new, |lifetime| quote!(<#lifetime>)),
        lifetime: lifetime.map_or_else(|| quote!('feature), |lifetime| quote!(#lifetime)),
    })
}

pub(crate) fn tagger(input: &DeriveInput) -> Result<TokenStream> {
    let Parts { name, idents, types, spellings, lifetime, arguments } = parts(input)?;
    let places = (0..types.len()).map(syn::Index::from);
    Ok(quote! {
        impl<#lifetime> ::heyuan_tagger::Features<#lifetime> for #name #arguments {
            type Columns = (#(<#types as ::heyuan_tagger::Feature<#lifetime>>::Column,)*);

            fn reads() -> ::std::vec::Vec<::heyuan_tagger::FeatureDeclaration> {
                ::std::vec![#(::heyuan_tagger::FeatureDeclaration {
                    name: ::std::string::String::from(#spellings),
                    kind: <#types as ::heyuan_tagger::Feature<#lifetime>>::KIND,
                }),*]
            }

            fn columns(
                cursor: &mut ::heyuan_tagger::Cursor<#lifetime>,
            ) -> ::std::result::Result<Self::Columns, ::std::string::String> {
                ::std::result::Result::Ok((#(<#types as ::heyuan_tagger::Feature<#lifetime>>::column(cursor)?,)*))
            }

            #[inline(always)]
            fn row(columns: &Self::Columns, row: usize) -> Self {
                Self { #(#idents: <#types as ::heyuan_tagger::Feature<#lifetime>>::read(&columns.#places, row)),* }
            }
        }
    })
}

pub(crate) fn benefit_rule(input: &DeriveInput) -> Result<TokenStream> {
    let Parts { name, idents, types, spellings, lifetime, arguments } = parts(input)?;
    let places = 0..types.len();
    Ok(quote! {
        impl<#lifetime> ::heyuan_benefit_rule::Counters<#lifetime> for #name #arguments {
            fn reads() -> ::std::vec::Vec<::heyuan_benefit_rule::FeatureDeclaration> {
                ::std::vec![#(::heyuan_benefit_rule::FeatureDeclaration {
                    name: ::std::string::String::from(#spellings),
                    kind: <#types as ::heyuan_benefit_rule::Counter<#lifetime>>::KIND,
                }),*]
            }

            fn read(
                values: &#lifetime [::heyuan_benefit_rule::FeatureValue],
            ) -> ::std::result::Result<Self, ::std::string::String> {
                ::std::result::Result::Ok(Self {
                    #(#idents: <#types as ::heyuan_benefit_rule::Counter<#lifetime>>::read(values.get(#places), #spellings)?),*
                })
            }
        }
    })
}
