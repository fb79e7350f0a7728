//! Routes a request by method and path to its handler.
//!
//! The raw path is matched if it is canonical; nothing is decoded or normalised before.

use std::collections::HashMap;
use std::sync::Arc;

use http::Method;
use matchit::{InsertError, Router};

use crate::access::Access;
use crate::listener::Handler;
use crate::listener::canonical::{decode, is_canonical, may_hold_free_text};
use crate::methods::Methods;

/// Parameters of a path, percent-decoded.
pub(super) type Params = Vec<(Box<str>, Box<str>)>;

/// The routes of a listener. Immutable: changes replace the table.
#[derive(Default)]
pub(super) struct Table {
    router: Router<usize>,
    /// Routes of each path, by the path's number.
    entries: Vec<Vec<Entry>>,
    numbers: HashMap<Box<str>, usize>,
    /// Whether any route has free text in its path.
    free: bool,
}

struct Entry {
    methods: Methods,
    /// Parameters that hold free text.
    free: &'static [&'static str],
    served: Option<Served>,
}

/// The handler of a route, with its access check.
#[derive(Clone)]
pub(super) struct Served {
    /// Component that owns the route.
    pub(super) owner: Arc<str>,
    pub(super) access: Arc<dyn Access>,
    pub(super) handler: Arc<dyn Handler>,
}

/// Target of a request.
pub(super) enum Target {
    /// A handler.
    Served(Served, Params),
    /// A claimed path without a handler at the moment.
    Detached,
    /// A path that has only these other methods.
    OtherMethods(Methods),
    /// A path that no route claims.
    Unknown,
    /// A path that is not canonical.
    Ambiguous,
}

impl Table {
    /// Adds a route for a path and some of its methods.
    ///
    /// # Errors
    ///
    /// Fails with the reason when the path already has one of these methods.
    pub(super) fn insert(
        &mut self,
        path: &str,
        methods: Methods,
        served: Option<Served>,
    ) -> Result<(), String> {
        self.insert_free(path, methods, &[], served)
    }

    /// As [`insert`](Self::insert), for a path with free text in some parameters.
    pub(super) fn insert_free(
        &mut self,
        path: &str,
        methods: Methods,
        free: &'static [&'static str],
        served: Option<Served>,
    ) -> Result<(), String> {
        self.free |= !free.is_empty();
        let entry = Entry {
            methods,
            free,
            served,
        };
        if let Some(number) = self.numbers.get(path) {
            // A number is an index of `entries`.
            let entries = &mut self.entries[*number];
            if entries.iter().any(|other| other.methods.overlaps(methods)) {
                return Err(format!("path {path:?} already has these methods"));
            }
            entries.push(entry);
            return Ok(());
        }
        let number = self.entries.len();
        let inserted = self.router.insert(path, number);
        inserted.map_err(|error| reason(path, &error))?;
        self.numbers.insert(path.into(), number);
        self.entries.push(vec![entry]);
        Ok(())
    }

    /// Finds the target of a method and a raw path.
    pub(super) fn find(&self, method: &Method, path: &str) -> Target {
        let canonical = is_canonical(path);
        let free_text = self.free && may_hold_free_text(path);
        if !canonical && !free_text {
            return Target::Ambiguous;
        }
        let Ok(found) = self.router.at(path) else {
            return Target::Unknown;
        };
        let entries = &self.entries[*found.value];
        if entries.iter().all(|entry| entry.served.is_none()) {
            return Target::Detached;
        }
        let Some(entry) = entries.iter().find(|entry| entry.methods.contains(method)) else {
            let methods = entries.iter().map(|entry| entry.methods);
            return Target::OtherMethods(methods.fold(Methods::NONE, Methods::and));
        };
        let Some(served) = &entry.served else {
            return Target::Detached;
        };
        let mut params = Params::with_capacity(found.params.len());
        for (name, value) in found.params.iter() {
            if !canonical && !entry.free.contains(&name) && !is_canonical(&format!("/{value}")) {
                return Target::Ambiguous;
            }
            match decode(value) {
                Some(value) => params.push((name.into(), value)),
                None => return Target::Ambiguous,
            }
        }
        Target::Served(served.clone(), params)
    }
}

/// Whether requests can have a configured path.
pub(super) fn check(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err(format!("path {path:?} does not start with a slash"));
    }
    if path.contains(['?', '#', '%']) || path.bytes().any(|b| b <= b' ' || b >= 0x7f) {
        return Err(format!(
            "path {path:?} contains a character that no request path can have: use letters, digits and - . _ ~ /"
        ));
    }
    if !is_canonical(path) {
        return Err(format!(
            "path {path:?} has an empty, \".\" or \"..\" segment, which no request may have"
        ));
    }
    Router::new()
        .insert(path, ())
        .map_err(|error| reason(path, &error))
}

/// matchit's refusal of a path, in Metrifold's words.
fn reason(path: &str, error: &InsertError) -> String {
    match error {
        InsertError::Conflict { with } => format!("path {path:?} collides with {with:?}"),
        InsertError::InvalidParamSegment => {
            format!("path {path:?} has two parameters in one segment")
        }
        InsertError::InvalidCatchAll => {
            format!("path {path:?} has a {{*parameter}} that is not its last segment")
        }
        _ => format!("path {path:?} has a parameter without a name, or an unmatched brace"),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::access::Everybody;
    use crate::answer;
    use crate::testing::By;

    /// The path that a request is routed to, or why it is not.
    fn lead(table: &Table, method: Method, path: &str) -> String {
        match table.find(&method, path) {
            Target::Served(_, params) => format!("{params:?}"),
            Target::Detached => "detached".to_owned(),
            Target::OtherMethods(methods) => methods.to_string(),
            Target::Unknown => "unknown".to_owned(),
            Target::Ambiguous => "ambiguous".to_owned(),
        }
    }

    fn served(name: &'static str) -> Option<Served> {
        let handler = By(move |_: &crate::Request| answer::text(StatusCode::OK, name));
        Some(Served {
            owner: name.into(),
            access: Arc::new(Everybody),
            handler: Arc::new(handler),
        })
    }

    #[test]
    fn the_more_exact_path_goes_first_whatever_the_order() {
        let paths = [
            "/api/v1/{*rest}",
            "/api/v1/query",
            "/api/v1/label/{name}/values",
        ];
        for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
            let mut table = Table::default();
            for place in order {
                let path = paths[place];
                table.insert(path, Methods::GET, served(path)).unwrap();
            }
            for (path, params) in [
                ("/api/v1/query", "[]"),
                ("/api/v1/series", "[(\"rest\", \"series\")]"),
                ("/api/v1/query/x", "[(\"rest\", \"query/x\")]"),
                ("/api/v1/label/job/values", "[(\"name\", \"job\")]"),
                (
                    "/api/v1/label/job/other",
                    "[(\"rest\", \"label/job/other\")]",
                ),
                ("/api/v1/", "unknown"),
                ("/api/v2/query", "unknown"),
                ("/api/v1/../v1/query", "ambiguous"),
            ] {
                assert_eq!(lead(&table, Method::GET, path), params, "{path}");
            }
        }
    }

    #[test]
    fn methods_of_one_path_may_be_of_several_routes() {
        let mut table = Table::default();
        table.insert("/a/{x}", Methods::GET, None).unwrap();
        assert_eq!(lead(&table, Method::POST, "/a/1"), "detached");
        let put = served("put");
        table.insert("/a/{x}", Methods::PUT, put).unwrap();
        assert!(table.insert("/a/{x}", Methods::GET, None).is_err());
        assert!(table.insert("/a/{y}", Methods::POST, None).is_err());
        assert_eq!(lead(&table, Method::HEAD, "/a/1"), "detached");
        assert_eq!(lead(&table, Method::PUT, "/a/1"), "[(\"x\", \"1\")]");
        assert_eq!(lead(&table, Method::POST, "/a/1"), "GET, HEAD, PUT");
    }

    #[test]
    fn free_text_is_for_the_parameters_that_a_route_declares() {
        let mut table = Table::default();
        let path = "/{tenant}/{group}";
        let free = &["group"][..];
        table
            .insert_free(path, Methods::GET, free, served("a"))
            .unwrap();
        for (path, led) in [
            ("/a/b", "[(\"tenant\", \"a\"), (\"group\", \"b\")]"),
            ("/a/b%2Fc", "[(\"tenant\", \"a\"), (\"group\", \"b/c\")]"),
            ("/a/%2E%2E", "[(\"tenant\", \"a\"), (\"group\", \"..\")]"),
            ("/a%2Fb/c", "ambiguous"),
            ("/%61/c", "ambiguous"),
            ("/a/b%00", "ambiguous"),
            ("/a/../b", "ambiguous"),
            ("/a/b%2fc", "ambiguous"),
        ] {
            assert_eq!(lead(&table, Method::GET, path), led, "{path}");
        }
    }

    #[test]
    fn a_configured_path_must_be_one_that_a_request_can_have() {
        for path in [
            "/",
            "/api/v1/write",
            "/api/{tenant}/write",
            "/files/{*rest}",
        ] {
            assert_eq!(check(path), Ok(()), "{path}");
        }
        for path in [
            "", "api", "/a//b", "/a/../b", "/a?b", "/a b", "/é", "/{", "/{a}{b}", "/{*a}/b",
        ] {
            assert!(check(path).is_err(), "{path}");
        }
    }
}
