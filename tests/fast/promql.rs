//! `metrifold promql`: its page shows its real output, and expressions may come from stdin.

use std::io::Write;
use std::process::Stdio;

use crate::pages::{printed, shows_what_is_printed};

#[test]
fn the_page_shows_what_is_printed() {
    let page = include_str!("../../docs/promql.md");
    let failed = |printed: &str| printed.starts_with("metrifold: ");
    assert_eq!(shows_what_is_printed(page, failed), 4);
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
