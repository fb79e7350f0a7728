//! Rule files: whatever is accepted is written as something that is read back as the same, and a name
//! in a rules folder has one meaning.
#![no_main]

use libfuzzer_sys::fuzz_target;

use metrifold_promql::{Options, parse};
use metrifold_rules::{Checks, Limits, RuleFile, Template, any_expr, decode_name};

fuzz_target!(|text: &[u8]| {
    let expr = |text: &str| match parse(text, &Options::default()) {
        Ok(_) => any_expr(text),
        Err(error) => Err(error.to_string()),
    };
    let checks = Checks {
        limits: Limits {
            nodes: 10_000,
            ..Limits::DEFAULT
        },
        ..Checks::new(&expr)
    };
    match RuleFile::parse(text, &checks) {
        Ok(parsed) => {
            let written = parsed.file.to_yaml();
            let again = RuleFile::parse(written.as_bytes(), &checks);
            let again = again.expect("what was written can be read").file;
            assert_eq!(again, parsed.file);
            assert_eq!(again.to_yaml(), written, "equal files are written alike");
        }
        Err(problems) => assert!(!problems.is_empty()),
    }
    if let Ok(name) = std::str::from_utf8(text) {
        // Whoever finds a file of this name may trust what it says.
        let _ = decode_name(name);
        template(name);
    }
});

/// What is queried can be replaced, and the result is a template whose queries are those.
fn template(text: &str) {
    let Ok(template) = Template::parse(text, "a") else {
        return;
    };
    let Ok(mapped) = template.map_queries(&mut |query| Ok(format!("{query}+0"))) else {
        return;
    };
    let again = Template::parse(&mapped, "a").expect("what was written is a template");
    let mut check = |query: &str| match query.ends_with("+0") {
        true => Ok(query.to_owned()),
        false => Err(format!("{query} was left")),
    };
    again.map_queries(&mut check).expect("no query was left");
}
