//! Secrets are found in every encoding.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::*;

const SECRET: &str = "p\"ä&<s>'w+o/r d=ü%\\";

fn known() -> Secret {
    Secret::new(SECRET)
}

fn percent(text: &str, kept: &str, lower: bool) -> String {
    let encode = |byte: u8| match char::from(byte) {
        c if c.is_ascii_alphanumeric() || kept.contains(c) => c.to_string(),
        _ if lower => format!("%{byte:02x}"),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[test]
fn a_secret_is_shown_by_nothing() {
    let secret = known();
    assert_eq!(format!("{secret} {secret:?}"), "*** <secret>");
    assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
    assert_eq!(secret.expose(), SECRET);
}

#[test]
fn a_secret_is_found_in_every_encoding() {
    let _known = known();
    let json = serde_json::to_string(SECRET).unwrap();
    let html = |quote: &str, apostrophe: &str| {
        let text = SECRET.replace('&', "&amp;").replace('<', "&lt;");
        let text = text.replace('>', "&gt;").replace('"', quote);
        text.replace('\'', apostrophe)
    };
    for encoded in [
        SECRET.to_owned(),
        percent(SECRET, "-_.~", false),
        percent(SECRET, "-_.~/!'()*", true),
        percent(SECRET, " ", false).replace(' ', "+"),
        json.trim_matches('"').to_owned(),
        serde_json::to_string(&json).unwrap(),
        json.replace('&', "\\u0026").replace('<', "\\u003c"),
        json.replace('ä', "\\u00e4").replace('ü', "\\u00FC"),
        format!("{SECRET:?}"),
        SECRET.escape_default().to_string(),
        html("&quot;", "&#x27;"),
        html("&#34;", "&#39;"),
        format!("{:?}", percent(SECRET, "", false)),
    ] {
        let shown = foreign(&format!("you sent {encoded}, which is wrong"), 1000);
        let shown = shown.replace('"', "");
        let hidden = shown.strip_prefix("you sent ").unwrap();
        let hidden = hidden.strip_suffix(", which is wrong").unwrap();
        assert_eq!(hidden.trim_matches(['\\', '"']), "***", "{encoded}");
    }
}

#[test]
fn a_secret_is_found_in_base64_wherever_it_begins() {
    let secret = Secret::new("hunter2hunter3");
    for before in ["", "u:", "us:", "user:", "user-5:"] {
        for engine in [STANDARD.encode(b""), "url".to_owned()] {
            let text = format!("{before}{}~~", secret.expose());
            let encoded = match engine.is_empty() {
                true => STANDARD.encode(text),
                false => URL_SAFE_NO_PAD.encode(text),
            };
            let shown = foreign(&format!("Basic {encoded} is wrong"), 1000);
            let rest: String = shown.replace("Basic ", "").replace(" is wrong", "");
            let (first, last) = rest.split_once("***").unwrap_or_else(|| panic!("{shown}"));
            assert!(
                encoded.starts_with(first) && encoded.ends_with(last),
                "{shown}"
            );
            assert!(first.len() <= 12 && last.len() <= 5, "{shown}");
        }
    }
}

#[test]
fn a_long_secret_is_hidden_where_it_was_cut_off() {
    let long: String = (0..2000)
        .map(|at| char::from(b'a' + (at * 7 % 26) as u8))
        .collect();
    let _known = Secret::new(&*long);
    assert_eq!(foreign(&format!("x {long} y"), 10_000), "x *** y");
    assert_eq!(foreign(&format!("x {}", &long[..1500]), 300), "x ***");
    // The limit counts characters as if the text held no secret.
    let text = format!("{long} {}", "word ".repeat(100));
    assert_eq!(foreign(&text, 300), "***");
}

#[test]
fn ordinary_words_stay_in_our_own_texts() {
    let _word = Secret::new("qwertz");
    let _other = Secret::new("qwertz1");
    assert_eq!(scrub("qwertz of qwertz1"), "qwertz of ***");
    assert_eq!(foreign("qwertz\nof\u{7} qwertz1", 99), "*** of ***");
    let _short = Secret::new("yx");
    assert_eq!(foreign("yx", 99), "yx");
}

#[test]
fn secrets_that_nobody_uses_are_forgotten_after_a_while() {
    drop(Secret::new("forgotten-000"));
    assert_eq!(foreign("forgotten-000", 99), "***");
    for number in 1000..1600 {
        drop(Secret::new(format!("forgotten-{number}")));
    }
    assert_eq!(foreign("forgotten-000", 99), "forgotten-000");
    assert_eq!(foreign("forgotten-1599", 99), "***");
}
