//! Expands patterns to paths of files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

use thiserror::Error;

use metrifold_base::FileError;

/// Why a pattern yields no files.
#[derive(Debug, Error)]
pub enum PathError {
    /// The file or folder cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// Why.
        error: FileError,
    },
    /// Not a valid glob pattern.
    #[error("{pattern:?} is not a glob pattern: {reason}")]
    NotAPattern {
        /// The pattern.
        pattern: String,
        /// The syntax error.
        reason: String,
    },
    /// Nothing matches the pattern.
    #[error("no file matches {0:?}")]
    NoMatch(String),
    /// A folder without any `*.toml` file.
    #[error("directory {} holds no *.toml file", .0.display())]
    EmptyFolder(PathBuf),
}

/// Expands patterns to files, sorted and each once: a file itself, the `*.toml` of a directory, the
/// matches of a glob. Errors are added to `errors`.
pub fn paths(patterns: &[String], errors: &mut Vec<PathError>) -> Vec<PathBuf> {
    let mut seen = BTreeSet::new();
    let mut paths = Vec::new();
    for pattern in patterns {
        match expand(pattern) {
            Ok(found) => paths.extend(found),
            Err(error) => errors.push(error),
        }
    }
    paths.retain(|path| seen.insert(fs::canonicalize(path).unwrap_or_else(|_| path.clone())));
    paths
}

fn expand(pattern: &str) -> Result<Vec<PathBuf>, PathError> {
    let path = Path::new(pattern);
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => in_directory(path),
        Ok(_) => Ok(vec![path.to_owned()]),
        Err(_) if pattern.contains(['*', '?', '[']) => {
            let matches = glob::glob(pattern).map_err(|error| PathError::NotAPattern {
                pattern: pattern.to_owned(),
                reason: error.to_string(),
            })?;
            let mut paths: Vec<PathBuf> = matches.flatten().filter(|path| !path.is_dir()).collect();
            paths.sort();
            match paths.is_empty() {
                true => Err(PathError::NoMatch(pattern.to_owned())),
                false => Ok(paths),
            }
        }
        Err(error) => Err(unreadable(path, error)),
    }
}

fn in_directory(directory: &Path) -> Result<Vec<PathBuf>, PathError> {
    let entries = fs::read_dir(directory).map_err(|error| unreadable(directory, error))?;
    let mut paths: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            // Kubernetes keeps hidden generations of mounted files next to the links to them.
            let hidden = path
                .file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            !hidden && path.extension().is_some_and(|end| end == "toml") && !path.is_dir()
        })
        .collect();
    paths.sort();
    match paths.is_empty() {
        true => Err(PathError::EmptyFolder(directory.to_owned())),
        false => Ok(paths),
    }
}

fn unreadable(path: &Path, error: io::Error) -> PathError {
    let (path, error) = (path.to_owned(), error.into());
    PathError::Unreadable { path, error }
}

/// The folder in which a pattern's matches lie: the part before its first wildcard.
pub fn folder_of(pattern: &Path) -> PathBuf {
    let fixed: PathBuf = pattern
        .iter()
        .take_while(|part| !part.to_string_lossy().contains(['*', '?', '[']))
        .collect();
    let folder = match fixed == pattern {
        true => fixed.parent().map(Path::to_path_buf).unwrap_or_default(),
        false => fixed,
    };
    match folder.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => folder,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_begins_in_the_folder_before_its_first_wildcard() {
        for (pattern, folder) in [
            ("/etc/rules/*.yaml", "/etc/rules"),
            ("/etc/*/rules/a.yaml", "/etc"),
            ("/etc/rules/a.yaml", "/etc/rules"),
            ("a.yaml", "."),
            ("*.yaml", "."),
            ("/etc/**/*.yaml", "/etc"),
        ] {
            assert_eq!(
                folder_of(Path::new(pattern)),
                Path::new(folder),
                "{pattern}"
            );
        }
    }
}
