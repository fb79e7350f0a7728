//! Conflicts over ports, paths and folders, found before anything is bound or written.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use metrifold_http::{Listen, overlap};

use crate::component::Resource;

use super::diagnostic::Diagnostic;
use super::source::Place;

/// A resource and the component or table that claims it.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    /// `sources.x`, or `api`.
    pub(crate) owner: String,
    pub(crate) resource: &'a Resource,
    pub(crate) place: &'a Place,
}

/// Reason why two claims conflict.
#[derive(Debug, PartialEq, Eq)]
enum Clash {
    /// Both are the same route.
    Path,
    /// Two routes set this property of a shared listener differently.
    Listener(String),
    /// Both use one address, and at least one of them cannot share it.
    Address,
    /// The addresses differ, but the port cannot be bound for both.
    Overlap,
    /// Both write into one folder.
    Folder,
    /// Both write one file.
    File,
    /// One writes a file in the folder of the other.
    Inside,
}

/// Reports every pair of conflicting claims, at the later one.
pub(crate) fn check(claims: &[Claim<'_>], found: &mut Vec<Diagnostic>) {
    for (at, claim) in claims.iter().enumerate() {
        for other in &claims[..at] {
            if let Some(clash) = clash(other.resource, claim.resource) {
                found.push(report(&clash, other, claim));
                break;
            }
        }
    }
}

fn report(clash: &Clash, first: &Claim<'_>, second: &Claim<'_>) -> Diagnostic {
    let at = |claim: &Claim<'_>| {
        let address = address(claim.resource).map(|address| address.to_string());
        address.unwrap_or_default()
    };
    let owner = &first.owner;
    let (message, help) = match (clash, second.resource) {
        (Clash::Folder, Resource::Folder(folder)) => (
            format!(
                "folder {:?} is taken by {owner}",
                folder.display().to_string()
            ),
            "choose another folder",
        ),
        (Clash::File, Resource::File(file)) => (
            format!(
                "file {:?} is written by {owner}",
                file.display().to_string()
            ),
            "choose another file",
        ),
        (Clash::Inside, Resource::File(file)) => (
            format!(
                "file {:?} lies in the folder of {owner}",
                file.display().to_string()
            ),
            "choose a file elsewhere",
        ),
        (Clash::Inside, Resource::Folder(folder)) => (
            format!(
                "folder {:?} has the file of {owner} in it",
                folder.display().to_string()
            ),
            "choose another folder",
        ),
        (Clash::Path, Resource::Route(listen)) => (
            format!("path {:?} is taken by {owner}", listen.path),
            "choose another path or address",
        ),
        (Clash::Listener(reason), _) => (
            format!("{reason}, and {owner} differs"),
            "write the same in both, or choose another port",
        ),
        (Clash::Path | Clash::Address | Clash::Folder | Clash::File | Clash::Inside, _) => (
            format!("address {} is taken by {owner}", at(second)),
            "choose another port",
        ),
        (Clash::Overlap, _) => (
            format!(
                "address {} overlaps with {}, which is taken by {owner}",
                at(second),
                at(first)
            ),
            "write the same address in both to share it, or choose another port",
        ),
    };
    let message = format!("{}: {message}", second.owner);
    let diagnostic = Diagnostic::error(message)
        .at(second.place.clone())
        .with_help(help);
    if first.place == second.place {
        return diagnostic;
    }
    diagnostic.with_related(first.place.clone(), "it is taken here")
}

fn clash(first: &Resource, second: &Resource) -> Option<Clash> {
    if let (Resource::Folder(first), Resource::Folder(second)) = (first, second) {
        return same_path(first, second).then_some(Clash::Folder);
    }
    if let (Resource::File(first), Resource::File(second)) = (first, second) {
        return same_path(first, second).then_some(Clash::File);
    }
    if let (Resource::Folder(folder), Resource::File(file))
    | (Resource::File(file), Resource::Folder(folder)) = (first, second)
    {
        let inside = absolute(file).starts_with(absolute(folder));
        return inside.then_some(Clash::Inside);
    }
    let (a, b) = (address(first)?, address(second)?);
    if a.port() == 0 || a.port() != b.port() || !overlap(a.ip(), b.ip()) {
        return None;
    }
    if a != b {
        return Some(Clash::Overlap);
    }
    match (first, second) {
        (Resource::Route(first), Resource::Route(second)) => share(first, second),
        _ => Some(Clash::Address),
    }
}

/// Checks whether two routes of one address can share its listener.
fn share(first: &Listen, second: &Listen) -> Option<Clash> {
    if first.collides(second) {
        return Some(Clash::Path);
    }
    first.compatible(second).err().map(Clash::Listener)
}

fn address(resource: &Resource) -> Option<SocketAddr> {
    match resource {
        Resource::Route(listen) => Some(listen.address),
        Resource::Address(address) => Some(*address),
        Resource::Folder(_) | Resource::File(_) => None,
    }
}

/// Whether two paths are spellings of the same path, without reading the file system.
fn same_path(first: &Path, second: &Path) -> bool {
    absolute(first)
        .components()
        .eq(absolute(second).components())
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(address: &str, path: &str) -> Resource {
        // Fields of a listener beyond these have defaults.
        Resource::Route(crate::config::tests::listen(address, path))
    }

    #[test]
    fn a_file_clashes_with_the_folder_that_it_lies_in() {
        let folder = |path: &str| Resource::Folder(path.into());
        let file = |path: &str| Resource::File(path.into());
        for (path, expected) in [
            ("/a/rules/x.yaml", Some(Clash::Inside)),
            ("/a/rules/x/y.yaml", Some(Clash::Inside)),
            ("/a/rules.yaml", None),
            ("/a/rulesx/y.yaml", None),
        ] {
            let (folder, file) = (folder("/a/rules"), file(path));
            assert_eq!(clash(&folder, &file), expected, "{path}");
            assert_eq!(clash(&file, &folder), expected, "{path}");
        }
    }

    #[test]
    fn wildcard_addresses_overlap_with_what_they_include() {
        let clash = |a: &str, b: &str| clash(&route(a, "/a"), &route(b, "/b"));
        assert_eq!(
            clash("0.0.0.0:9201", "127.0.0.1:9201"),
            Some(Clash::Overlap)
        );
        assert_eq!(clash("[::]:9201", "127.0.0.1:9201"), Some(Clash::Overlap));
        assert_eq!(clash("[::]:9201", "0.0.0.0:9201"), Some(Clash::Overlap));
        assert_eq!(clash("[::1]:9201", "[::]:9201"), Some(Clash::Overlap));
        assert_eq!(clash("127.0.0.1:9201", "127.0.0.2:9201"), None);
        assert_eq!(clash("0.0.0.0:9201", "[::1]:9201"), None);
        assert_eq!(clash("0.0.0.0:9201", "127.0.0.1:9202"), None);
        assert_eq!(clash("0.0.0.0:0", "0.0.0.0:0"), None);
        assert_eq!(clash("127.0.0.1:9201", "127.0.0.1:9201"), None);
    }

    #[test]
    fn one_folder_is_filled_by_one_sink() {
        let folder = |path: &str| Resource::Folder(path.into());
        let taken = Some(Clash::Folder);
        assert_eq!(clash(&folder("/a/b"), &folder("/a/./b/")), taken);
        assert_eq!(clash(&folder("/a/b"), &folder("/a/c")), None);
        assert_eq!(clash(&folder("/a/b"), &route("127.0.0.1:1", "/a")), None);
    }

    #[test]
    fn routes_share_an_address_and_nothing_else_does() {
        let a = route("127.0.0.1:1", "/x/{tenant}/y");
        assert_eq!(
            clash(&a, &route("127.0.0.1:1", "/x/{id}/y")),
            Some(Clash::Path)
        );
        assert_eq!(clash(&a, &route("127.0.0.1:1", "/x/1/y")), None);
        let alone = Resource::Address("127.0.0.1:1".parse().unwrap());
        assert_eq!(clash(&a, &alone), Some(Clash::Address));
        assert_eq!(clash(&alone, &alone), Some(Clash::Address));
    }
}
