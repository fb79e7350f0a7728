//! Hostile inputs: whatever is accepted can be printed, formatted, narrowed, copied and dropped on
//! a small stack, and everything else is refused at a bound.

use metrifold_promql::{
    ErrorKind, ImplicitInfo, MatchOp, Matcher, Options, ParseError, enforce, parse, parse_selector,
    parse_series,
};

/// Half of what tokio gives its workers, although tests are not optimised.
const STACK: usize = 1024 * 1024;

fn on_a_small_stack(work: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(work);
    thread
        .expect("a thread")
        .join()
        .expect("no overflow and no panic");
}

/// Does everything with an input that can be done.
fn use_fully(input: &str, options: &Options) -> Result<(), ParseError> {
    let mut expr = parse(input, options)?;
    let matcher = Matcher::new("tenant", MatchOp::Equal, "a");
    let copy = expr.clone();
    enforce(&mut expr, &[matcher], ImplicitInfo::Narrow).expect("narrowed");
    assert!(expr.to_string().len() >= copy.to_query().len());
    assert!(expr.format().len() < 600 * input.len() + 600);
    Ok(())
}

/// Ways to nest, each as what opens, what stands inside and what closes a level.
const NESTED: [(&str, &str, &str); 12] = [
    ("(", "a", ")"),
    ("-", "a", ""),
    ("a ^ ", "a", ""),
    ("a + (", "a", ")"),
    ("abs(", "a", ")"),
    ("sum by (x) (", "a", ")"),
    ("topk(1, ", "a", ")"),
    ("a and on (b) (c or ", "a", ")"),
    ("max_over_time((", "a", ")[5m:])"),
    ("vector(scalar(", "a", "))"),
    ("clamp(a, 1, scalar(", "a", "))"),
    ("info(", "a", ", {b=\"c\"})"),
];

#[test]
fn nesting_is_refused_beyond_its_bound_and_harmless_up_to_it() {
    on_a_small_stack(|| {
        for (open, inside, close) in NESTED {
            let nested =
                |levels: usize| format!("{}{inside}{}", open.repeat(levels), close.repeat(levels));
            let options = Options::default();
            let mut deepest = 0;
            for levels in (10..=210).step_by(10) {
                match use_fully(&nested(levels), &options) {
                    Ok(()) => deepest = levels,
                    Err(error) => assert_eq!(error.kind, ErrorKind::Limit, "{error}"),
                }
            }
            assert!((60..210).contains(&deepest), "{open} up to {deepest}");
            let far = parse(&nested(15_000), &options).expect_err("refused");
            assert_eq!(far.kind, ErrorKind::Limit, "{open}: {far}");
        }
    });
}

#[test]
fn durations_nest_no_deeper_than_expressions() {
    on_a_small_stack(|| {
        for (open, close) in [
            ("(", ")"),
            ("-(", ")"),
            ("1^", ""),
            ("--", ""),
            ("max_of(1,", ")"),
        ] {
            for (before, after) in [("a[", "]"), ("a offset (", ")"), ("a[5m:", "]")] {
                let nested = |levels: usize| {
                    let (open, close) = (open.repeat(levels), close.repeat(levels));
                    format!("{before}{open}1m{close}{after}")
                };
                use_fully(&nested(90), &Options::default()).expect("accepted");
                let far = parse(&nested(30_000), &Options::default()).expect_err("refused");
                assert_eq!(far.kind, ErrorKind::Limit, "{far}");
            }
        }
    });
}

#[test]
fn chains_are_as_long_as_the_number_of_parts_allows() {
    on_a_small_stack(|| {
        let options = Options::default();
        for (first, more, parts) in [("a", " or a", 2), ("1", "+1", 2), ("a", " and on (b) a", 3)] {
            let most = (options.max_parts as usize - 1) / parts + 1;
            let chain = |terms: usize| format!("{first}{}", more.repeat(terms - 1));
            use_fully(&chain(most), &options).expect("accepted");
            let error = parse(&chain(most + 1), &options).expect_err("refused");
            assert_eq!(error.kind, ErrorKind::Limit, "{error}");
        }
        let most = options.max_parts as usize / 2;
        let durations = |terms: usize| format!("a[1{}]", "+1".repeat(terms));
        use_fully(&durations(most - 10), &options).expect("accepted");
        let error = parse(&durations(most + 10), &options).expect_err("refused");
        assert_eq!(error.kind, ErrorKind::Limit, "{error}");
    });
}

#[test]
fn brackets_in_a_row_are_refused_without_recursion() {
    on_a_small_stack(|| {
        let error = parse(&format!("a{}", "[1m:]".repeat(9_000)), &Options::default());
        assert_eq!(error.expect_err("refused").kind, ErrorKind::Type);
    });
}

#[test]
fn lists_count_as_parts() {
    let few = Options {
        max_parts: 100,
        ..Options::default()
    };
    for (input, parser) in [
        (format!("a{{{}}}", "b='c',".repeat(200)), 0),
        (format!("sum by ({}) (a)", "b,".repeat(200)), 0),
        (format!("a + on ({}) c", "b,".repeat(200)), 0),
        (format!("a{{{}}}", "b='c',".repeat(200)), 1),
        (format!("a {}", "1 ".repeat(200)), 2),
        (format!("a {{{{buckets:[1{}]}}}}", " 1".repeat(200)), 2),
    ] {
        let error = match parser {
            0 => parse(&input, &few).map(drop),
            1 => parse_selector(&input, &few).map(drop),
            _ => parse_series(&input, &few).map(drop),
        };
        assert_eq!(error.expect_err(&input).kind, ErrorKind::Limit, "{input}");
    }
}

#[test]
fn repetitions_of_a_series_are_not_written_out() {
    let series = parse_series("a 1x18446744073709551614", &Options::default()).expect("a series");
    assert_eq!(series.items[0].count, u64::MAX);
    let error = parse_series("a 1x18446744073709551615", &Options::default());
    assert!(error.is_err());
}

#[test]
fn inputs_are_refused_beyond_their_length() {
    let options = Options {
        max_length: 10,
        ..Options::default()
    };
    assert!(parse("0123456789", &options).is_ok());
    let error = parse("0123456789 ", &options).expect_err("refused");
    assert_eq!(error.kind, ErrorKind::Limit);
}
