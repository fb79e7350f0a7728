//! Finding the queries of a template, and the errors for unknown ones. `tests/rulefmt.rs` compares the
//! syntax of templates with Prometheus' own verdicts.

use super::*;

/// Wraps each query of a template in `q(…)`.
fn marked(text: &str) -> Result<String, String> {
    let template = Template::parse(text, "Alert").map_err(|error| error.to_string())?;
    let mapped = template.map_queries(&mut |query| Ok(format!("q({query})")));
    mapped.map_err(|error| error.to_string())
}

#[test]
fn queries_are_found_behind_the_word_through_pipes_and_variables() {
    for (text, expected) in [
        ("plain {{ $value }}", "plain {{ $value }}"),
        (r#"{{ query "up" }}"#, r#"{{ query "q(up)" }}"#),
        ("{{ query `a{b=\"c\"}` }}", r#"{{ query "q(a{b=\"c\"})" }}"#),
        (
            r#"{{ "up" | query | first }}"#,
            r#"{{ "q(up)" | query | first }}"#,
        ),
        (r#"{{ (query ("up")) }}"#, r#"{{ (query ("q(up)")) }}"#),
        (
            r#"{{ $q := "up" }}{{ if true }}{{ query $q }}{{ end }}{{ $q }}"#,
            r#"{{ $q := "up" }}{{ if true }}{{ query "q(up)" }}{{ end }}{{ $q }}"#,
        ),
        (
            r#"{{ $q := "up" }}{{ $q | query }}"#,
            r#"{{ $q := "up" }}{{ "q(up)" | query }}"#,
        ),
        (
            r#"{{ define "x" }}{{ range query "up" }}{{ . }}{{ end }}{{ end }}{{ template "x" (query "a") }}"#,
            r#"{{ define "x" }}{{ range query "q(up)" }}{{ . }}{{ end }}{{ end }}{{ template "x" (query "q(a)") }}"#,
        ),
        (
            r#"{{ with query "a" }}{{ else with query "b" }}{{ block "x" query "c" }}{{ query "d" }}{{ end }}{{ end }}"#,
            r#"{{ with query "q(a)" }}{{ else with query "q(b)" }}{{ block "x" query "q(c)" }}{{ query "q(d)" }}{{ end }}{{ end }}"#,
        ),
        // No calls.
        (
            r#"query "up" {{/* query .x */}}{{ "query" }}{{ .query }}"#,
            r#"query "up" {{/* query .x */}}{{ "query" }}{{ .query }}"#,
        ),
    ] {
        assert_eq!(marked(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn a_query_that_is_not_known_is_refused() {
    for text in [
        "{{ query .x }}",
        "{{ query $value }}",
        "{{ query }}",
        "{{ query | print }}",
        r#"{{ query "a" "b" }}"#,
        r#"{{ "a" | query "b" }}"#,
        r#"{{ printf "up{a=%q}" .x | query }}"#,
        r#"{{ query (printf "up") }}"#,
        r#"{{ print "a" | print | query }}"#,
        r#"{{ call query "up" }}"#,
        r#"{{ print query }}"#,
        r#"{{ query.a "up" }}"#,
        r#"{{ with "up" }}{{ query . }}{{ end }}"#,
        r#"{{ define "x" }}{{ query . }}{{ end }}{{ template "x" "up" }}"#,
        r#"{{ define "x" }}{{ query $ }}{{ end }}{{ template "x" "up" }}"#,
        // Variables whose value may have changed before the call.
        r#"{{ $q := "a" }}{{ $q = .x }}{{ query $q }}"#,
        r#"{{ $q := "a" }}{{ if true }}{{ $q := .x }}{{ query $q }}{{ end }}"#,
        r#"{{ $q := "a" }}{{ $q := "b" }}{{ query $q }}"#,
        r#"{{ $q := "a" }}{{ range $q := .x }}{{ query $q }}{{ end }}"#,
        r#"{{ range $i, $q := .x }}{{ query $q }}{{ end }}"#,
        r#"{{ $q := "a" | print }}{{ query $q }}"#,
        r#"{{ $labels := "a" }}{{ query $labels }}"#,
        r#"{{ $q := "a" }}{{ print ($q := .x) }}{{ query $q }}"#,
        r#"{{ $q := "a" }}{{ query $q.b }}"#,
        r#"{{ query "\xff" }}"#,
    ] {
        let error = marked(text).unwrap_err();
        assert!(
            error.contains("write the expression as a string"),
            "{text}: {error}"
        );
    }
}

#[test]
fn errors_say_where_and_suggest() {
    let error = marked("a\nb {{ humanise $value }}").unwrap_err();
    assert_eq!(
        error,
        "function \"humanise\" not defined: did you mean `humanize`? (line 2, column 6 of it)"
    );
    let template = Template::parse("{{ query \"a\" }}", "A").unwrap();
    let error = template
        .map_queries(&mut |_| Err("no".to_owned()))
        .unwrap_err();
    assert!(error.message.contains("query \"a\" in it: no"), "{error}");
}

#[test]
fn nesting_is_bounded() {
    for (open, close) in [
        ("(", ")"),
        ("{{if 1}}", "{{end}}"),
        ("{{if 1}}{{else}}", "{{end}}"),
    ] {
        let nested = open.repeat(5000) + "1" + &close.repeat(5000);
        let text = match open {
            "(" => format!("{{{{ {nested} }}}}"),
            _ => nested,
        };
        let error = Template::parse(&text, "A").unwrap_err();
        assert!(error.message.contains("deeper than 100"), "{error}");
    }
    let chain = format!("{{{{if 1}}}}{}{{{{end}}}}", "{{else if 2}}".repeat(5000));
    assert!(Template::parse(&chain, "A").is_err());
}

#[test]
fn what_is_quoted_is_unquoted_to_the_same() {
    use proptest::prelude::*;
    proptest!(|(text in any::<String>())| {
        let quoted = literal::quote(&text);
        prop_assert_eq!(literal::unquote(&quoted), Some(text.into_bytes()));
    });
}

#[test]
fn arbitrary_text_never_panics() {
    use proptest::prelude::*;
    proptest!(|(text in "[\\{\\}\\(\\)|\"`'. $:=,\\-/*\\\\a-fx0-9é\n]{0,60}")| {
        let _ = marked(&text);
        let _ = marked(&format!("{{{{{text}}}}}"));
    });
}
