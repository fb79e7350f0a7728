//! Describes in one line what a listener serves.

use std::fmt::Write as _;

use crate::methods::Methods;

/// Most paths that are named per owner.
const NAMED: usize = 3;

/// Each owner with its methods and paths, in order of the claims.
pub(super) fn line<'a>(claims: impl Iterator<Item = (&'a str, Methods, &'a str)>) -> String {
    let mut owners: Vec<(&str, Vec<String>)> = Vec::new();
    for (owner, methods, path) in claims {
        // GET implies HEAD.
        let methods = methods.to_string().replace("GET, HEAD", "GET");
        let served = format!("{methods} {path}");
        match owners.iter_mut().find(|(known, _)| *known == owner) {
            Some((_, all)) => all.push(served),
            None => owners.push((owner, vec![served])),
        }
    }
    let mut line = String::new();
    for (owner, served) in owners {
        let sep = if line.is_empty() { "" } else { "; " };
        let named = served[..served.len().min(NAMED)].join(", ");
        // Writing to a `String` cannot fail.
        let _ = write!(line, "{sep}{owner}: {named}");
        if served.len() > NAMED {
            let _ = write!(line, " and {} more", served.len() - NAMED);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_owners_with_their_first_paths() {
        let (get, post) = (Methods::GET, Methods::POST);
        let claims = [
            ("ingest", post, "/write"),
            ("api", get, "/"),
            ("api", get, "/metrics"),
            ("api", get, "/a"),
            ("api", post, "/b"),
        ];
        assert_eq!(
            line(claims.into_iter()),
            "ingest: POST /write; api: GET /, GET /metrics, GET /a and 1 more"
        );
    }
}
