//! Relabelling's patterns and templates: whatever is accepted can be matched and expanded, and
//! both ways of matching agree. The input is a pattern, a template and a text, each on its line.
#![no_main]

use libfuzzer_sys::fuzz_target;

use metrifold_regex::Regex;
use metrifold_regex::Template;

fuzz_target!(|input: &str| {
    let mut lines = input.splitn(3, '\n').chain(["", ""]);
    let [pattern, template, text] = [(); 3].map(|()| lines.next().unwrap_or_default());
    let Ok(regex) = Regex::new(pattern) else {
        return;
    };
    let mut groups = regex.locations();
    let captured = regex.captures(text.as_bytes(), &mut groups);
    assert_eq!(captured, regex.is_match(text.as_bytes()));
    assert_eq!(captured, regex.matcher().is_match(text.as_bytes()));
    let template = Template::new(template, &regex);
    if captured {
        let mut expanded = Vec::new();
        template.expand(text.as_bytes(), &groups, &mut expanded);
        assert!(std::str::from_utf8(&expanded).is_ok());
        if let Some(constant) = template.constant() {
            assert_eq!(constant, expanded);
        }
    }
});
