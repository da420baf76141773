//! What brought a visitor: UTM parameters and click ids, from the context, the page's address or the properties.

use crate::collect::wire::{Context, Loose, Part, Text, plain};
use heyuan_contract::Touch;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// Longest value kept, in characters: click ids of the platforms are below 200.
const VALUE_CHARS_MAX: usize = 256;

/// The parameters of click ids and their platforms.
const CLICK_IDS: [(&str, &str); 3] = [("gdt_vid", "tencent_ads"), ("clickid", "ocean_engine"), ("bd_vid", "baidu")];

#[derive(Default, Deserialize)]
struct InProperties<'a> {
    #[serde(borrow, default)]
    gdt_vid: Loose<Text<'a>>,
    #[serde(borrow, default)]
    clickid: Loose<Text<'a>>,
    #[serde(borrow, default)]
    bd_vid: Loose<Text<'a>>,
    #[serde(borrow, default)]
    url: Loose<Text<'a>>,
}

impl Part for InProperties<'_> {}

/// Reads the touch of a message; `None` when nothing brought the visitor.
pub(crate) fn read(context: &Context<'_>, properties: Option<&RawValue>) -> Option<Touch> {
    let mut touch = Touch::default();
    let text = |text: &Loose<Text<'_>>| text.get().map(|text| text.0.to_string());
    if let Some(campaign) = context.campaign.get() {
        touch.source = text(&campaign.source);
        touch.medium = text(&campaign.medium);
        touch.campaign = text(&campaign.name);
        touch.content = text(&campaign.content);
        touch.term = text(&campaign.term);
        for (value, (_, platform)) in [&campaign.gdt_vid, &campaign.clickid, &campaign.bd_vid].into_iter().zip(CLICK_IDS) {
            take_click(&mut touch, platform, text(value));
        }
    }
    if let Some(page) = context.page.get() {
        for address in [&page.url, &page.search].into_iter().filter_map(Loose::get) {
            read_address(&mut touch, &address.0);
        }
    }
    // Most properties hold none of these words; looking for them first saves parsing the object once more.
    if let Some(raw) = properties
        && ["gdt_vid", "clickid", "bd_vid", "utm_"].iter().any(|word| raw.get().contains(word))
        && let Loose::Read(own) = Loose::<InProperties<'_>>::read(raw)
    {
        for (value, (_, platform)) in [&own.gdt_vid, &own.clickid, &own.bd_vid].into_iter().zip(CLICK_IDS) {
            take_click(&mut touch, platform, text(value));
        }
        if let Some(url) = own.url.get() {
            read_address(&mut touch, &url.0);
        }
    }
    let touch = bounded(touch);
    (touch != Touch::default()).then_some(touch)
}

/// The touch without control characters, with empty values left out and long ones cut.
pub(crate) fn bounded(touch: Touch) -> Touch {
    let cut = |value: Option<String>| {
        let value = value.map(|text| plain(Cow::Owned(text)).chars().take(VALUE_CHARS_MAX).collect::<String>());
        value.filter(|text| !text.trim().is_empty())
    };
    Touch {
        source: cut(touch.source),
        medium: cut(touch.medium),
        campaign: cut(touch.campaign),
        content: cut(touch.content),
        term: cut(touch.term),
        platform: cut(touch.platform),
        click_id: cut(touch.click_id),
    }
}

fn take_click(touch: &mut Touch, platform: &str, value: Option<String>) {
    if let Some(value) = value.map(|value| plain(Cow::Owned(value)).into_owned()).filter(|value| !value.trim().is_empty())
        && touch.click_id.is_none()
    {
        touch.platform = Some(platform.to_owned());
        touch.click_id = Some(value);
    }
}

fn read_address(touch: &mut Touch, address: &str) {
    let Some((_, query)) = address.split_once('?') else { return };
    let query = query.split_once('#').map_or(query, |(query, _)| query);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()).take(64) {
        let place = match name.as_ref() {
            "utm_source" => &mut touch.source,
            "utm_medium" => &mut touch.medium,
            "utm_campaign" => &mut touch.campaign,
            "utm_content" => &mut touch.content,
            "utm_term" => &mut touch.term,
            other => {
                if let Some((_, platform)) = CLICK_IDS.iter().find(|(parameter, _)| *parameter == other) {
                    take_click(touch, platform, Some(value.into_owned()));
                }
                continue;
            }
        };
        if place.is_none() {
            *place = Some(value.into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn touches_are_read_from_wherever_they_stand() {
        for (context, click, campaign) in [
            (r#"{"page":{"url":"https://a.example/x?utm_campaign=P1&gdt_vid=g1#top"}}"#, Some(("tencent_ads", "g1")), Some("P1")),
            (r#"{"campaign":{"name":"P2","clickid":"c1"}}"#, Some(("ocean_engine", "c1")), Some("P2")),
            (r#"{"page":{"search":"?bd_vid=%E4%BD%A0"}}"#, Some(("baidu", "你")), None),
            (r#"{"page":{"url":"https://a.example/x"}}"#, None, None),
            (r#"{"page":{"url":"https://a.example/x?utm_campaign=P%003%0a&clickid=%00&bd_vid=b%001"}}"#, Some(("baidu", "b1")), Some("P3")),
            (r#"{"page":{"url":"https://a.example/x?utm_source=%00"}}"#, None, None),
        ] {
            let parsed: Context<'_> = serde_json::from_str(context).expect("the test's own text");
            let touch = read(&parsed, None);
            let found = touch.as_ref().and_then(|touch| touch.platform.as_deref().zip(touch.click_id.as_deref()));
            assert_eq!((found, touch.as_ref().and_then(|touch| touch.campaign.as_deref())), (click, campaign), "{context}");
        }
    }
}
