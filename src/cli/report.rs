//! Loading for a subcommand, and where output goes: results to stdout, the rest to stderr.

use std::io::{self, IsTerminal, Write};

use metrifold_engine::config;
use metrifold_engine::config::{Diagnostic, LoadOptions, Loaded, ProcessEnvironment, Severity};

use super::{EXIT_CONFIG, EXIT_FAILURE, EXIT_OK, Global};

/// Loads the configuration and prints what is to be said about it; on errors, returns the exit
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

/// Prints what is wrong with the configuration, and returns the exit code.
pub(super) fn refuse(found: &[Diagnostic]) -> u8 {
    print_diagnostics(found);
    let errors = found
        .iter()
        .filter(|found| found.severity == Severity::Error)
        .count();
    complain(&format!("the configuration has {}", count(errors, "error")));
    EXIT_CONFIG
}

/// Whether stderr is a terminal whose user did not ask for plain text (<https://no-color.org>).
pub(super) fn in_color() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !no_color
}

/// Prints diagnostics to stderr, with an empty line after each.
fn print_diagnostics(found: &[Diagnostic]) {
    let color = in_color();
    let mut stderr = io::stderr().lock();
    for diagnostic in found {
        // Nobody is left to be told when stderr fails.
        let _ = writeln!(stderr, "{}\n", diagnostic.render(color));
    }
}

/// Prints to stderr what somebody else has to say.
pub(super) fn tell(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text.trim_end());
}

/// Text of somebody else, without what a terminal would take for more than text.
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
        // The reader has seen enough, as in `metrifold list | head`.
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
