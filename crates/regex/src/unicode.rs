//! Names that Go accepts in `\p{…}`: general categories, their aliases, and scripts.
//!
//! Go and the `regex` crate both ignore case, spaces, underscores and hyphens. Scripts whose names
//! Go spells with an underscore (`Old_Italic`) cannot be named in Go at all, so they are missing
//! here too.

/// The class that a name stands for, as an item of a bracketed class of the `regex` crate.
pub(super) fn class(name: &str, negated: bool) -> Option<String> {
    let name = canonical(name);
    let letter = if negated { 'P' } else { 'p' };
    let property = match name.as_str() {
        "Any" if negated => return Some(String::new()),
        "Any" => return Some(r"\x{0}-\x{10FFFF}".into()),
        "Ascii" if negated => return Some(r"[^\x{0}-\x{7F}]".into()),
        "Ascii" => return Some(r"[\x{0}-\x{7F}]".into()),
        "Assigned" => return Some(format!(r"\{}{{Cn}}", if negated { 'p' } else { 'P' })),
        // Text contains no surrogates.
        "Cs" | "Surrogate" if negated => return Some(r"\x{0}-\x{10FFFF}".into()),
        "Cs" | "Surrogate" => return Some(String::new()),
        "Lc" => "LC",
        other => CATEGORIES
            .iter()
            .copied()
            .find(|&category| category == other)
            .or_else(|| {
                let mut aliases = ALIASES.iter();
                aliases
                    .find(|(alias, _)| *alias == other)
                    .map(|(_, to)| *to)
            })
            .unwrap_or_default(),
    };
    if !property.is_empty() {
        return Some(format!(r"\{letter}{{gc={property}}}"));
    }
    SCRIPTS
        .contains(&name.as_str())
        .then(|| format!(r"\{letter}{{sc={name}}}"))
}

/// Normalises a name: first letter upper case, the rest lower, no spaces, underscores or hyphens.
fn canonical(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars().filter(|c| !matches!(c, ' ' | '_' | '-')) {
        out.push(if out.is_empty() {
            c.to_ascii_uppercase()
        } else {
            c.to_ascii_lowercase()
        });
    }
    out
}

#[rustfmt::skip]
const CATEGORIES: &[&str] = &[
    "C", "Cc", "Cf", "Cn", "Co", "L", "Ll", "Lm", "Lo", "Lt", "Lu", "M", "Mc", "Me", "Mn", "N",
    "Nd", "Nl", "No", "P", "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S", "Sc", "Sk", "Sm",
    "So", "Z", "Zl", "Zp", "Zs",
];

#[rustfmt::skip]
const ALIASES: &[(&str, &str)] = &[
    ("Casedletter", "LC"), ("Closepunctuation", "Pe"), ("Cntrl", "Cc"), ("Combiningmark", "M"),
    ("Connectorpunctuation", "Pc"), ("Control", "Cc"), ("Currencysymbol", "Sc"),
    ("Dashpunctuation", "Pd"), ("Decimalnumber", "Nd"), ("Digit", "Nd"),
    ("Enclosingmark", "Me"), ("Finalpunctuation", "Pf"), ("Format", "Cf"),
    ("Initialpunctuation", "Pi"), ("Letter", "L"), ("Letternumber", "Nl"),
    ("Lineseparator", "Zl"), ("Lowercaseletter", "Ll"), ("Mark", "M"), ("Mathsymbol", "Sm"),
    ("Modifierletter", "Lm"), ("Modifiersymbol", "Sk"), ("Nonspacingmark", "Mn"),
    ("Number", "N"), ("Openpunctuation", "Ps"), ("Other", "C"), ("Otherletter", "Lo"),
    ("Othernumber", "No"), ("Otherpunctuation", "Po"), ("Othersymbol", "So"),
    ("Paragraphseparator", "Zp"), ("Privateuse", "Co"), ("Punct", "P"), ("Punctuation", "P"),
    ("Separator", "Z"), ("Spaceseparator", "Zs"), ("Spacingmark", "Mc"), ("Symbol", "S"),
    ("Titlecaseletter", "Lt"), ("Unassigned", "Cn"), ("Uppercaseletter", "Lu"),
];

#[rustfmt::skip]
const SCRIPTS: &[&str] = &[
    "Adlam", "Ahom", "Arabic", "Armenian", "Avestan", "Balinese", "Bamum", "Batak", "Bengali",
    "Bhaiksuki", "Bopomofo", "Brahmi", "Braille", "Buginese", "Buhid", "Carian", "Chakma",
    "Cham", "Cherokee", "Chorasmian", "Common", "Coptic", "Cuneiform", "Cypriot", "Cyrillic",
    "Deseret", "Devanagari", "Dogra", "Duployan", "Elbasan", "Elymaic", "Ethiopic", "Georgian",
    "Glagolitic", "Gothic", "Grantha", "Greek", "Gujarati", "Gurmukhi", "Han", "Hangul",
    "Hanunoo", "Hatran", "Hebrew", "Hiragana", "Inherited", "Javanese", "Kaithi", "Kannada",
    "Katakana", "Kawi", "Kharoshthi", "Khmer", "Khojki", "Khudawadi", "Lao", "Latin", "Lepcha",
    "Limbu", "Lisu", "Lycian", "Lydian", "Mahajani", "Makasar", "Malayalam", "Mandaic",
    "Manichaean", "Marchen", "Medefaidrin", "Miao", "Modi", "Mongolian", "Mro", "Multani",
    "Myanmar", "Nabataean", "Nandinagari", "Newa", "Nko", "Nushu", "Ogham", "Oriya", "Osage",
    "Osmanya", "Palmyrene", "Phoenician", "Rejang", "Runic", "Samaritan", "Saurashtra",
    "Sharada", "Shavian", "Siddham", "Sinhala", "Sogdian", "Soyombo", "Sundanese", "Syriac",
    "Tagalog", "Tagbanwa", "Takri", "Tamil", "Tangsa", "Tangut", "Telugu", "Thaana", "Thai",
    "Tibetan", "Tifinagh", "Tirhuta", "Toto", "Ugaritic", "Vai", "Vithkuqi", "Wancho", "Yezidi",
    "Yi",
];
