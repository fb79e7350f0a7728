//! `convert promregator`: a configuration of Promregator, as TOML.

use std::path::{Path, PathBuf};

use clap::Args;

use metrifold_base::read_text;
use metrifold_cloud_foundry::promregator;

use crate::cli::{EXIT_CONFIG, EXIT_USAGE, report};

/// Largest file that is read.
const MAX_FILE: u64 = 16 << 20;
/// Folder of secrets in a container.
const SECRETS: &str = "/run/secrets";

const AFTER_HELP: &str = "\
Examples:
  metrifold convert promregator promregator.yml > cf.toml
  ENCRYPT_KEY=... metrifold convert promregator promregator.yml > cf.toml

Keys of others in the file, such as Prometheus' own, are passed over. Values that begin with {cipher} \
are decrypted with ENCRYPT_KEY, or with the key in the file of /run/secrets that ENCRYPT_KEY_FILE \
names; what is written then holds the secrets. What has no counterpart is said in comments and on \
standard error.";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct PromregatorArgs {
    /// The file
    #[arg(value_name = "FILE", default_value = "promregator.yml")]
    file: PathBuf,
}

pub(super) fn execute(args: &PromregatorArgs) -> u8 {
    let file = &args.file;
    let text = match read_text(file, MAX_FILE) {
        Ok(text) => text,
        Err(error) => {
            report::complain(&format!("{}: {error}", file.display()));
            return EXIT_USAGE;
        }
    };
    let key = match key() {
        Ok(key) => key,
        Err(reason) => {
            report::complain(&reason);
            return EXIT_USAGE;
        }
    };
    match promregator::convert(&text, key.as_deref()) {
        Ok(converted) => {
            for note in &converted.notes {
                report::tell(note);
            }
            report::print(&converted.toml)
        }
        Err(wrong) => {
            for wrong in wrong {
                report::complain(&format!("{}: {wrong}", file.display()));
            }
            EXIT_CONFIG
        }
    }
}

/// The key by which Promregator decrypts values.
fn key() -> Result<Option<String>, String> {
    let variable = |name| std::env::var(name).ok().filter(|it| !it.is_empty());
    if let Some(key) = variable("ENCRYPT_KEY") {
        return Ok(Some(key));
    }
    let Some(name) = variable("ENCRYPT_KEY_FILE") else {
        return Ok(None);
    };
    // Promregator's image looks there; joining an absolute path yields that path.
    let file = Path::new(SECRETS).join(name);
    match read_text(&file, MAX_FILE) {
        Ok(key) => Ok(Some(key.trim().to_owned())),
        Err(error) => Err(format!("ENCRYPT_KEY_FILE: {}: {error}", file.display())),
    }
}
