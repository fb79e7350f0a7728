//! What holds for every input: nothing panics, and what is printed means what was read.

use std::fmt::Write as _;

use metrifold_promql::{
    Duration, DurationId, DurationKind, Expr, ImplicitInfo, MatchOp, Matcher, NodeId, NodeKind,
    Offset, Options, enforce, insert, parse, parse_selector, parse_series,
};
use proptest::prelude::*;

fn options(unquoted_names: bool) -> Options {
    Options {
        unquoted_names,
        ..Options::default()
    }
}

/// Every input of the golden files, or of others like them.
fn corpus() -> Vec<String> {
    let folder = std::env::var("PROMQL_GOLDEN")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden").to_owned());
    let text = std::fs::read_to_string(format!("{folder}/expressions.jsonl"));
    let text = text.expect("a golden file");
    let input = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        line[1].as_str().expect("an input").to_owned()
    };
    text.lines().map(input).collect()
}

/// The meaning of an expression: its tree without places, and without parentheses in durations.
fn meaning(expr: &Expr, id: NodeId, out: &mut String) {
    let node = &expr[id];
    match &node.kind {
        NodeKind::Aggregate(it) => write!(out, "{:?} {:?}", it.op, it.grouping),
        NodeKind::Binary(it) => write!(out, "{:?} {} {:?}", it.op, it.return_bool, it.matching),
        NodeKind::Call(it) => write!(out, "{}", it.function.name),
        NodeKind::Number(it) => write!(out, "{:?}", it.value),
        NodeKind::Paren(_) => write!(out, "paren"),
        NodeKind::Range(it) => write!(out, "[{}]", length(expr, it.range)),
        NodeKind::String(it) => write!(out, "{:?}", it.as_bytes()),
        NodeKind::Unary(sign, _) => write!(out, "{sign:?}"),
        NodeKind::Subquery(it) => {
            let step = it.step.map(|step| length(expr, step));
            let (range, offset) = (length(expr, it.range), offset(expr, it.offset));
            write!(out, "[{range}:{step:?}] {offset} {:?}", it.at)
        }
        NodeKind::Selector(it) => {
            let mut matchers: Vec<_> = it.matchers.iter().map(|m| format!("{m:?}")).collect();
            matchers.sort();
            let offset = offset(expr, it.offset);
            write!(
                out,
                "{:?} {matchers:?} {offset} {:?} {:?}",
                it.name, it.at, it.extension
            )
        }
    }
    .expect("a string takes anything");
    out.push('(');
    for child in expr.children(id) {
        meaning(expr, child, out);
        out.push(',');
    }
    out.push(')');
}

fn offset(expr: &Expr, offset: Offset) -> String {
    match offset {
        Offset::Computed(id) => duration(expr, id),
        other => format!("{other:?}"),
    }
}

fn length(expr: &Expr, length: Duration) -> String {
    match length {
        Duration::Computed(id) => duration(expr, id),
        other => format!("{other:?}"),
    }
}

fn duration(expr: &Expr, id: DurationId) -> String {
    let part = |id| duration(expr, id);
    match expr[id].kind {
        DurationKind::Plus(inner) => part(inner),
        DurationKind::Minus(inner) => format!("-({})", part(inner)),
        DurationKind::Binary(op, a, b) => format!("({} {op:?} {})", part(a), part(b)),
        DurationKind::MinOf(a, b) => format!("min({}, {})", part(a), part(b)),
        DurationKind::MaxOf(a, b) => format!("max({}, {})", part(a), part(b)),
        DurationKind::Number { value, .. } => format!("{value:?}"),
        other => format!("{other:?}"),
    }
}

fn whole_meaning(expr: &Expr) -> String {
    let mut out = String::new();
    meaning(expr, expr.root(), &mut out);
    out
}

/// Checks everything that holds for an expression.
fn check(input: &str, options: &Options) {
    let Ok(mut expr) = parse(input, options) else {
        return;
    };
    let query = expr.to_query();
    let again =
        parse(&query, options).unwrap_or_else(|error| panic!("{input} as {query}: {error}"));
    assert_eq!(
        whole_meaning(&expr),
        whole_meaning(&again),
        "{input} as {query}"
    );
    assert_eq!(query, again.to_query(), "{input}");
    let formatted = parse(&expr.format_query(), options).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(whole_meaning(&expr), whole_meaning(&formatted), "{input}");
    // Formatting changes nothing but spaces.
    let words = |text: &str| text.split_whitespace().collect::<String>();
    assert_eq!(words(&expr.format()), words(&expr.to_string()), "{input}");

    let implicit = expr.implicit_info().count();
    let selectors = expr.selectors().count();
    let tenant = Matcher::new("tenant.id", MatchOp::Regex, "a|b");
    let places = expr.places(input);
    enforce(
        &mut expr,
        std::slice::from_ref(&tenant),
        ImplicitInfo::Narrow,
    )
    .expect("narrowed");
    let query = expr.to_query();
    let sent = parse(&query, options).unwrap_or_else(|error| panic!("{input} as {query}: {error}"));
    assert_eq!(sent.selectors().count(), selectors + implicit, "{input}");
    assert!(
        sent.selectors()
            .all(|selector| selector.matchers.contains(&tenant)),
        "{query}"
    );
    assert_eq!(sent.implicit_info().count(), 0);
    // Inserting the matcher into the text has the same effect.
    if let Some(places) = places {
        let text = insert(input, &places, &tenant.to_string());
        let text = text.expect("the offsets are those of the input");
        let sent = parse(&text, options).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(whole_meaning(&expr), whole_meaning(&sent), "{text}");
    }
}

#[test]
fn what_is_printed_means_what_was_read_for_the_whole_corpus() {
    for input in corpus() {
        check(&input, &options(false));
        check(&input, &options(true));
    }
}

#[test]
fn expressions_that_prometheus_prints_as_something_else_are_printed_as_they_are() {
    for (input, printed) in [
        ("a offset --5m + 1m", "a offset (5m + 1m)"),
        ("a offset - +5 ^ 2", "a offset (-5 ^ 2)"),
        ("a offset - -(5m) * 2", "a offset --(5m) * 2"),
        ("a offset (5m) @ 1 + 2", "a offset (5m) @ 1.000 + 2"),
        ("a offset (5m) smoothed + 2", "a offset (5m) smoothed + 2"),
        ("a[0.0001]", "a[0.0001]"),
        ("a offset -0.0001", "a offset -0.0001"),
        ("a{b=\"\\ufffd\"}", "a{b=\"\\ufffd\"}"),
        ("-Inf ^ 2", "-Inf ^ 2"),
        ("a offset NaN", "a offset -9223372036.854776"),
    ] {
        let expr = parse(input, &Options::default()).expect("an expression");
        assert_eq!(expr.to_query(), printed);
        check(input, &Options::default());
    }
}

/// Pieces of the language, so that more than nonsense comes out.
fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "up", "a{b=\"c\"}", "{b!~'d'}", "rate(", "sum by (x) (", "topk(1,", "(", ")", "[5m]",
            "[1h:5m]", "1", "5m", "-", "+", "*", "^", " and ", " or on(x) ", " == bool ", "info(",
            " offset ", " @ ", "start()", "step()", "\"text\"", ",", "{", "}", "[", "]", "`", "#\n",
            " smoothed", "max_of(", " fill(1) ", " group_left(y) ", "é", "\\", "NaN", "0x", "_",
        ]).prop_map(str::to_owned),
        1 => any::<String>(),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_anything_panic(text in any::<String>()) {
        for unquoted in [false, true] {
            let options = options(unquoted);
            if let Err(error) = parse(&text, &options) {
                error.excerpt(&text);
            }
            let _ = parse_selector(&text, &options);
            let _ = parse_series(&text, &options);
        }
    }

    #[test]
    fn no_bytes_make_anything_panic(bytes in any::<Vec<u8>>()) {
        let text = String::from_utf8_lossy(&bytes);
        if let Err(error) = parse(&text, &options(true)) {
            error.excerpt(&text);
        }
    }

    #[test]
    fn pieces_of_the_language_are_refused_or_printed_as_what_they_are(text in pieces()) {
        match parse(&text, &options(false)) {
            Ok(_) => check(&text, &options(false)),
            Err(error) => prop_assert!(error.excerpt(&text).contains('^')),
        }
        let _ = parse_series(&text, &options(false));
    }
}
