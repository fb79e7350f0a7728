use std::collections::BTreeMap;

use metrifold_base::{Period, Size};

use super::*;

#[expect(dead_code, reason = "read by deserialization only")]
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Outer {
    address: std::net::SocketAddr,
    limit: Size,
    #[serde(default)]
    inner: Option<Inner>,
    #[serde(default)]
    rules: Vec<Inner>,
    #[serde(default)]
    more: BTreeMap<String, bool>,
}

#[expect(dead_code, reason = "read by deserialization only")]
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Inner {
    wait: Period,
    #[serde(default)]
    mode: Mode,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Block,
    DropOldest,
}

fn findings(text: &str) -> Vec<String> {
    let table = DeTable::parse(text).unwrap().into_inner();
    match all_errors(&table, &[], &[], &plain::<Outer>) {
        Ok(_) => Vec::new(),
        Err(findings) => findings
            .into_iter()
            .map(|f| {
                let at = f.span.clone().map_or("-", |span| &text[span]);
                format!(
                    "{} @ {at} ? {}",
                    f.describe("t"),
                    f.help.unwrap_or_default()
                )
            })
            .collect(),
    }
}

#[test]
fn what_is_right_has_no_findings() {
    let text =
        "address = '127.0.0.1:1'\nlimit = '1MiB'\n[inner]\nwait = '1s'\nmode = 'drop_oldest'";
    assert_eq!(findings(text), [""; 0]);
}

#[test]
fn every_error_is_found_in_one_go() {
    let text = concat!(
        "adress = 1\n",
        "rules = [{ wait = '1s', x = 1 }, { mode = 'blok' }, { wait = 3 }]\n",
        "more = { a = true, b = 'yes' }\n",
        "[inner]\n",
        "wait = '1 second'\n",
    );
    assert_eq!(
        findings(text),
        [
            "t: unknown key `adress` @ adress ? did you mean `address`?",
            "t.inner.wait: \"1 second\" is not a duration: write a whole number with a unit (ms, s, m, h, d, w), such as \"30s\" or \"1h30m\" @ '1 second' ? ",
            "t.more.b: must be true or false, not a text @ 'yes' ? ",
            "t.rules[0]: unknown key `x` @ x ? known keys: `mode`, `wait`",
            "t.rules[1].mode: unknown value `blok` @ 'blok' ? did you mean `block`?",
            "t.rules[1]: key `wait` is missing @ { mode = 'blok' } ? add `wait`",
            "t.rules[2].wait: must be a duration in quotes, such as \"30s\", not a number @ 3 ? ",
            "t: key `limit` is missing @ - ? add `limit`",
        ]
    );
}
