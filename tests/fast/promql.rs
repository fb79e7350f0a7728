//! `metrifold promql`: its page shows what it prints, and expressions come from stdin as well.

use std::io::Write;
use std::process::{Output, Stdio};

/// Words of a command line that has no other quotes than single ones.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        match at % 2 {
            0 => words.extend(part.split_whitespace()),
            _ => words.push(part),
        }
    }
    words
}

fn printed(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr];
    streams
        .map(|text| String::from_utf8(text.clone()).unwrap())
        .concat()
}

#[test]
fn the_page_shows_what_is_printed() {
    let page = include_str!("../../docs/promql.md");
    let mut shown = 0;
    for block in page.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        for example in block.split("$ metrifold ").skip(1) {
            let (line, expected) = example.split_once('\n').unwrap();
            let output = metrifold_testing::cli(&words(line)).output().unwrap();
            assert_eq!(printed(&output), expected, "{line}");
            let code = i32::from(expected.starts_with("metrifold: "));
            assert_eq!(output.status.code(), Some(code), "{line}");
            shown += 1;
        }
    }
    assert_eq!(shown, 4);
}

#[test]
fn an_expression_comes_from_stdin_and_may_begin_with_a_sign() {
    let mut child = metrifold_testing::cli(&["promql", "format", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"# half\n-up\n  / 2\n").unwrap();
    drop(stdin);
    assert_eq!(printed(&child.wait_with_output().unwrap()), "-up / 2\n");

    let output = metrifold_testing::cli(&["promql", "check", "-up"])
        .output()
        .unwrap();
    assert_eq!(printed(&output), "valid: instant vector, 1 selector\n");
}
