//! Loading and output for subcommands: results go to stdout, everything else to stderr.

use std::io::{self, IsTerminal, Write};

use metrifold_engine::config;
use metrifold_engine::config::{Diagnostic, LoadOptions, Loaded, ProcessEnvironment, Severity};

use super::{EXIT_CONFIG, EXIT_FAILURE, EXIT_OK, Global};

/// Loads the configuration and prints its warnings; on errors, prints them and returns the exit
/// code.
pub(super) fn load(global: &Global, options: LoadOptions) -> Result<Loaded, u8> {
    match config::load(&global.config, &ProcessEnvironment, options) {
        Ok(loaded) => {
            print_diagnostics(&loaded.warnings);
            Ok(loaded)
        }
        Err(found) => Err(refuse(&found)),
    }
}

/// Prints the errors of a configuration, and returns the exit code.
pub(super) fn refuse(found: &[Diagnostic]) -> u8 {
    print_diagnostics(found);
    let errors = found
        .iter()
        .filter(|found| found.severity == Severity::Error)
        .count();
    complain(&format!("the configuration has {}", count(errors, "error")));
    EXIT_CONFIG
}

/// Whether stderr is a terminal and colour is not disabled (<https://no-color.org>).
pub(super) fn in_color() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !no_color
}

/// Prints diagnostics to stderr, each followed by an empty line.
fn print_diagnostics(found: &[Diagnostic]) {
    let color = in_color();
    let mut stderr = io::stderr().lock();
    for diagnostic in found {
        // There is no other place to report that stderr fails.
        let _ = writeln!(stderr, "{}\n", diagnostic.render(color));
    }
}

/// Prints text of another program to stderr.
pub(super) fn tell(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text.trim_end());
}

/// Replaces control characters in foreign text, which a terminal would interpret.
pub(super) fn plain(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// Prints an error to stderr.
pub(super) fn complain(message: &str) {
    let _ = writeln!(io::stderr().lock(), "metrifold: {message}");
}

/// Prints a result to stdout and returns the exit code.
pub(super) fn print(text: &str) -> u8 {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => EXIT_OK,
        // The reader has closed the pipe, as in `metrifold list | head`.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => EXIT_OK,
        Err(error) => {
            complain(&format!("cannot write to stdout: {error}"));
            EXIT_FAILURE
        }
    }
}

/// `1 error`, `2 errors`.
pub(super) fn count(number: usize, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    }
}
