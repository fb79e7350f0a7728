//! Configurations: any text gives a configuration or errors that can be printed.
#![no_main]

use libfuzzer_sys::fuzz_target;

// Registers the components.
use metrifold as _;
use metrifold_engine::config::{LoadOptions, parse_texts};

fuzz_target!(|text: &str| {
    let environment = |name: &str| (name == "A").then(|| "topsecret".to_owned());
    // Files that the text names are not looked at.
    let options = LoadOptions { environment: false };
    match parse_texts(&[("fuzz.toml", text)], &environment, options) {
        Ok(loaded) => drop(format!("{:?}", loaded.config)),
        Err(found) => {
            assert!(!found.is_empty());
            for found in found {
                let printed = found.render(false);
                assert!(text.contains("topsecret") || !printed.contains("topsecret"));
            }
        }
    }
});
