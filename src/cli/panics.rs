//! Panics go to the log, scrubbed of known secrets, since their messages may contain values that
//! the code was working on.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::Write;
use std::panic::PanicHookInfo;
use std::{io, panic};

use tracing::{dispatcher, error};

use metrifold_base::scrub;

/// Installs the panic hook.
pub(super) fn scrub_messages() {
    panic::set_hook(Box::new(tell));
}

fn tell(panic: &PanicHookInfo<'_>) {
    let backtrace = Backtrace::capture();
    let said = said(panic, &backtrace);
    // Without a log, stderr, where its lines would go.
    if dispatcher::has_been_set() {
        error!("{said}");
    } else {
        let _ = writeln!(io::stderr().lock(), "{}", scrub(&said));
    }
}

fn said(panic: &PanicHookInfo<'_>, backtrace: &Backtrace) -> String {
    let current = std::thread::current();
    let thread = current.name().unwrap_or("without a name");
    let place = panic
        .location()
        .map_or_else(String::new, |at| format!(" at {at}"));
    let message = panic.payload_as_str().unwrap_or("without a message");
    let mut said = format!("thread {thread} panicked{place}: {message}");
    if backtrace.status() == BacktraceStatus::Captured {
        said.push_str(&format!("\n{backtrace}"));
    }
    said
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use metrifold_base::Secret;
    use metrifold_testing::run;

    use super::*;

    /// Environment variable that makes the child process panic.
    const PANICS: &str = "METRIFOLD_TEST_PANICS";

    #[test]
    fn the_message_of_a_panic_shows_no_secret() {
        if std::env::var_os(PANICS).is_some() {
            let secret = Secret::new("pl4nted-secret");
            scrub_messages();
            let panics = std::thread::spawn(move || panic!("cannot use {}", secret.expose()));
            assert!(panics.join().is_err());
            return;
        }
        let name = "cli::panics::tests::the_message_of_a_panic_shows_no_secret";
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", name, "--nocapture"])
            .env(PANICS, "1");
        let output = run(&mut command);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        assert!(told.contains("panicked at src/cli/panics.rs"), "{told}");
        assert!(told.contains("cannot use ***"), "{told}");
        assert!(!told.contains("pl4nted"), "{told}");
    }
}
