//! Structs of tags, and enums of a tag's values.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Data, DeriveInput, Error, Fields, GenericArgument, Ident, LitStr, PathArguments, Result, Type, Variant};

use crate::features::{annotation, named_fields};

/// The type inside `Option<…>`.
fn optional(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == "Option")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    match arguments.args.first() {
        Some(GenericArgument::Type(inner)) => Some(inner),
        _ => None,
    }
}

pub(crate) fn tags(input: &DeriveInput) -> Result<TokenStream> {
    let fields = named_fields(input)?;
    let name = &input.ident;
    let mut declarations = Vec::new();
    let mut columns = Vec::new();
    let mut writes = Vec::new();
    let mut types = Vec::new();
    let mut finishes = Vec::new();
    for (place, field) in fields.iter().enumerate() {
        let (spelling, ident, place) = (annotation(field, "tag")?, &field.ident, syn::Index::from(place));
        let ty = optional(&field.ty).unwrap_or(&field.ty);
        declarations.push(quote!(::heyuan_tagger::TagDeclaration {
            name: ::std::string::String::from(#spelling),
            kind: <#ty as ::heyuan_tagger::TagField>::KIND,
            values: <#ty as ::heyuan_tagger::TagField>::values().iter().map(|value| ::std::string::String::from(*value)).collect(),
        }));
        columns.push(quote!(<#ty as ::heyuan_tagger::TagField>::column(rows)));
        let value = if optional(&field.ty).is_some() { quote!(self.#ident) } else { quote!(::std::option::Option::Some(self.#ident)) };
        writes.push(quote!(<#ty as ::heyuan_tagger::TagField>::write(#value, &mut columns.#place, row);));
        finishes.push(quote!(<#ty as ::heyuan_tagger::TagField>::finish(columns.#place)));
        types.push(ty);
    }
    Ok(quote! {
        impl ::heyuan_tagger::Tags for #name {
            type Columns = (#(<#types as ::heyuan_tagger::TagField>::Column,)*);

            fn writes() -> ::std::vec::Vec<::heyuan_tagger::TagDeclaration> {
                ::std::vec![#(#declarations),*]
            }

            fn columns(rows: usize) -> Self::Columns {
                (#(#columns,)*)
            }

            #[inline(always)]
            fn write(self, columns: &mut Self::Columns, row: usize) {
                #(#writes)*
            }

            fn finish(columns: Self::Columns) -> ::std::vec::Vec<::heyuan_tagger::TagColumn> {
                ::std::vec![#(#finishes),*]
            }
        }
    })
}

fn snake_case(ident: &Ident) -> String {
    let mut name = String::new();
    for character in ident.to_string().chars() {
        if character.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(character.to_lowercase());
    }
    name
}

fn value(variant: &Variant) -> Result<LitStr> {
    if !matches!(variant.fields, Fields::Unit) {
        return Err(Error::new_spanned(variant, "a value of a tag carries no fields"));
    }
    variant
        .attrs
        .iter()
        .find(|attribute| attribute.path().is_ident("text"))
        .map_or_else(|| Ok(LitStr::new(&snake_case(&variant.ident), variant.ident.span())), |attribute| attribute.parse_args())
}

pub(crate) fn tag_text(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Enum(data) = &input.data else { return Err(Error::new_spanned(input, "this needs an enum")) };
    let name = &input.ident;
    let variants: Vec<&Ident> = data.variants.iter().map(|variant| &variant.ident).collect();
    let values: Vec<LitStr> = data.variants.iter().map(value).collect::<Result<_>>()?;
    let places = 0..variants.len() as u32;
    Ok(quote! {
        impl ::heyuan_tagger::TagText for #name {
            const VALUES: &'static [&'static str] = &[#(#values),*];

            #[inline(always)]
            fn place(&self) -> u32 {
                match self { #(Self::#variants => #places),* }
            }
        }
    })
}
