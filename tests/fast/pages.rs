//! Pages of the documentation that show commands with their output.

use std::process::Output;

/// Words of a command line, which has single quotes only.
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

/// Stderr and stdout of a command.
pub fn printed(output: &Output) -> String {
    let streams = [&output.stderr, &output.stdout];
    streams
        .map(|text| String::from_utf8(text.clone()).unwrap())
        .concat()
}

/// Runs every command on a page and compares its output with the page. A command must fail if
/// `failed` returns true for the shown output. Returns the number of commands.
#[track_caller]
pub fn shows_what_is_printed(page: &str, failed: impl Fn(&str) -> bool) -> usize {
    let mut shown = 0;
    for block in page.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        for example in block.split("$ metrifold ").skip(1) {
            let (line, expected) = example.split_once('\n').unwrap();
            let output = metrifold_testing::cli(&words(line)).output().unwrap();
            assert_eq!(printed(&output), expected, "{line}");
            let code = i32::from(failed(expected));
            assert_eq!(output.status.code(), Some(code), "{line}");
            shown += 1;
        }
    }
    shown
}
