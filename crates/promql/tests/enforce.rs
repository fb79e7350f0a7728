//! Narrowing: which selectors get which matchers, and what is refused.

use metrifold_promql::{
    EnforceError, ImplicitInfo, MatchOp, Matcher, Options, enforce, parse, parse_selector,
};

fn tenant() -> Matcher {
    Matcher::new("tenant_id", MatchOp::Equal, "team-a")
}

fn enforced(input: &str) -> String {
    let mut expr = parse(input, &Options::default()).expect("an expression");
    enforce(&mut expr, &[tenant()], ImplicitInfo::Narrow).expect("narrowed");
    expr.to_query()
}

#[test]
fn every_selector_gets_the_matcher_wherever_it_stands() {
    for (input, narrowed) in [
        ("up", r#"up{tenant_id="team-a"}"#),
        ("{job=\"a\"}", r#"{job="a",tenant_id="team-a"}"#),
        (
            "sum(rate(x[5m] offset 1h))",
            r#"sum(rate(x{tenant_id="team-a"}[5m] offset 1h))"#,
        ),
        ("-(a)", r#"-(a{tenant_id="team-a"})"#),
        (
            "topk(scalar(a), b)",
            r#"topk(scalar(a{tenant_id="team-a"}), b{tenant_id="team-a"})"#,
        ),
        (
            "a[5m:1m] @ end()",
            r#"a{tenant_id="team-a"}[5m:1m] @ end()"#,
        ),
        ("{\"a b\"}", r#"{__name__="a b",tenant_id="team-a"}"#),
        (
            "a or on () absent(b) unless c",
            r#"a{tenant_id="team-a"} or on () absent(b{tenant_id="team-a"}) unless c{tenant_id="team-a"}"#,
        ),
        ("1 + time()", "1 + time()"),
    ] {
        assert_eq!(enforced(input), narrowed, "{input}");
    }
}

#[test]
fn matchers_of_the_user_on_the_same_label_stay() {
    let both = r#"up{tenant_id="team-a",tenant_id="team-b"}"#;
    assert_eq!(enforced("up{tenant_id=\"team-b\"}"), both);
    let all = r#"up{tenant_id="team-a",tenant_id=~".*"}"#;
    assert_eq!(enforced("up{tenant_id=~\".*\"}"), all);
    let same = r#"up{tenant_id="team-a"}"#;
    assert_eq!(enforced(same), same);
}

#[test]
fn info_reads_no_other_series_with_a_selector_or_without() {
    let narrowed = r#"info(a{tenant_id="team-a"}, {tenant_id="team-a"})"#;
    assert_eq!(enforced("info(a)"), narrowed);
    assert_eq!(enforced("info(a, {})"), narrowed);
    assert_eq!(
        enforced("info(a, {\"build_info\", v=~\".+\"})"),
        r#"info(a{tenant_id="team-a"}, {__name__="build_info",tenant_id="team-a",v=~".+"})"#,
    );
    let nested = r#"info(info(a{tenant_id="team-a"}, {tenant_id="team-a"}), {tenant_id="team-a"})"#;
    assert_eq!(enforced("info(info(a))"), nested);
}

#[test]
fn info_without_a_selector_can_be_refused_and_leaves_the_expression_alone() {
    let mut expr = parse("a + info(b)", &Options::default()).expect("an expression");
    let refused = enforce(&mut expr, &[tenant()], ImplicitInfo::Refuse);
    assert_eq!(refused, Err(EnforceError::ImplicitInfo));
    assert_eq!(expr.to_query(), "a + info(b)");
}

#[test]
fn matchers_that_do_not_narrow_are_refused() {
    let wrong = [
        Matcher::new("tenant_id", MatchOp::Equal, ""),
        Matcher::new("tenant_id", MatchOp::Regex, "a|"),
        Matcher::new("tenant_id", MatchOp::Regex, ".*"),
        Matcher::new("tenant_id", MatchOp::NotEqual, "b"),
        Matcher::new("tenant_id", MatchOp::NotRegex, "b"),
        Matcher::new("__name__", MatchOp::Equal, "up"),
        Matcher::new("", MatchOp::Equal, "a"),
        Matcher::one_of("tenant_id", &[]),
        Matcher::one_of("tenant_id", &["a", ""]),
    ];
    let mut expr = parse("up", &Options::default()).expect("an expression");
    for matcher in wrong {
        let refused = enforce(
            &mut expr,
            &[tenant(), matcher.clone()],
            ImplicitInfo::Narrow,
        );
        assert!(refused.is_err(), "{matcher:?}");
    }
    let none = enforce(&mut expr, &[], ImplicitInfo::Narrow);
    assert_eq!(none, Err(EnforceError::NoMatchers));
    assert_eq!(expr.to_query(), "up");
}

#[test]
fn several_tenants_are_alternatives_and_any_label_or_value_is_quoted() {
    let matcher = Matcher::one_of("tenant.id", &["a.b", "\"c\n"]);
    let mut expr = parse("up{}", &Options::default()).expect("an expression");
    enforce(&mut expr, &[matcher], ImplicitInfo::Narrow).expect("narrowed");
    assert_eq!(expr.to_query(), r#"up{"tenant.id"=~"a\\.b|\"c\n"}"#);
}

#[test]
fn selectors_of_the_interface_are_narrowed_even_if_they_select_everything() {
    for (input, narrowed) in [
        ("{}", r#"{tenant_id="team-a"}"#),
        ("up", r#"up{tenant_id="team-a"}"#),
        (
            "{__name__=~\".+\"}",
            r#"{__name__=~".+",tenant_id="team-a"}"#,
        ),
    ] {
        let mut expr = parse_selector(input, &Options::default()).expect("a selector");
        enforce(&mut expr, &[tenant()], ImplicitInfo::Narrow).expect("narrowed");
        assert_eq!(expr.to_query(), narrowed);
    }
}

#[test]
fn alternatives_in_braces_are_refused_as_prometheus_does() {
    let error = parse("up{a=\"b\" or c=\"d\"}", &Options::default()).expect_err("refused");
    let message = "1:10: parse error: unexpected identifier \"or\" in label matching, \
                   expected \",\" or \"}\"";
    assert_eq!(error.to_string(), message);
}
