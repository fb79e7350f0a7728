//! PromQL: whatever is accepted is printed as something that is accepted and printed the same, and
//! once it is narrowed, every selector of what is printed has the matcher.
#![no_main]

use libfuzzer_sys::fuzz_target;
use metrifold_promql::{
    ImplicitInfo, MatchOp, Matcher, Options, enforce, parse, parse_selector, parse_series,
};

fuzz_target!(|input: &str| {
    for unquoted_names in [false, true] {
        let options = Options {
            unquoted_names,
            ..Options::default()
        };
        let _ = parse_selector(input, &options);
        let _ = parse_series(input, &options);
        let mut expr = match parse(input, &options) {
            Ok(expr) => expr,
            Err(error) => {
                assert!(error.excerpt(input).contains('^'));
                continue;
            }
        };
        let query = expr.to_query();
        let again = parse(&query, &options).expect("what was printed is accepted");
        assert_eq!(again.to_query(), query);
        let formatted = parse(&expr.format_query(), &options).expect("what was formatted is too");
        assert_eq!(formatted.to_query(), query);

        let tenant = Matcher::new("tenant", MatchOp::Equal, "a");
        let matchers = std::slice::from_ref(&tenant);
        enforce(&mut expr, matchers, ImplicitInfo::Narrow).expect("the matcher narrows");
        let sent = parse(&expr.to_query(), &options).expect("what is sent is accepted");
        assert!(sent.selectors().all(|selector| selector.matchers.contains(&tenant)));
        assert_eq!(sent.implicit_info().count(), 0);
    }
});
