//! Reads rule files by patterns: all matching files, or none.
//!
//! Patterns are those of the `glob` crate: `*` and `?` within a name, `[abc]`, and `**` for any
//! number of folders. A pattern without any of these names a file that must exist. A file that changes
//! while it is read is read again, and all files are if any of them changed, appeared or disappeared
//! meanwhile: the result is the state of one moment. Files are named relative to the deepest folder
//! that all patterns share.
//!
//! Every call blocks.

mod stable;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use glob::{MatchOptions, Pattern};

use crate::file::{Checks, Problem, RuleFile};
use crate::{StoredFile, TenantRules};
use stable::{Failure, Stamp};

/// Maximum attempts at reading files that change meanwhile.
const ATTEMPTS: usize = 5;
/// Maximum number of reported problems, over all files.
const MAX_PROBLEMS: usize = 1000;
const MATCHING: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

/// Limits of the files that patterns match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobLimits {
    /// Maximum number of files.
    pub files: usize,
    /// Maximum size of all files together, in bytes. [`crate::Limits`] bounds each file.
    pub bytes: u64,
}

impl Default for GlobLimits {
    fn default() -> Self {
        Self {
            files: 10_000,
            bytes: 256 << 20,
        }
    }
}

/// The files that were read.
#[derive(Clone, Debug)]
pub struct FilesRead {
    /// The files by their relative names.
    pub rules: TenantRules,
    /// Warnings about valid files.
    pub warnings: Vec<ReadProblem>,
}

/// A problem in a file, or in finding or reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadProblem {
    /// The file, folder or pattern.
    pub path: PathBuf,
    /// The problem; line 0 means that it has no position in the file.
    pub problem: Problem,
}

impl fmt::Display for ReadProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.problem.line {
            0 => write!(f, "{}: {}", self.path.display(), self.problem.message),
            _ => write!(f, "{}:{}", self.path.display(), self.problem),
        }
    }
}

/// Why files were not read: every problem of every file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ReadError(
    /// The problems by file and line, no more than 1000.
    pub Vec<ReadProblem>,
);

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

fn failed(path: &Path, message: impl Into<String>) -> ReadProblem {
    let problem = Problem {
        line: 0,
        column: 0,
        key: String::new(),
        message: message.into(),
    };
    ReadProblem {
        path: path.to_owned(),
        problem,
    }
}

/// Reads all files that the patterns match. No match is an error only for a pattern without wildcards.
pub fn read_globs(
    patterns: &[impl AsRef<str>],
    checks: &Checks<'_>,
    limits: &GlobLimits,
) -> Result<FilesRead, ReadError> {
    read_watching(patterns, checks, limits, &mut |_| ())
}

/// [`read_globs`] with a callback after each file, for tests.
fn read_watching(
    patterns: &[impl AsRef<str>],
    checks: &Checks<'_>,
    limits: &GlobLimits,
    was_read: &mut dyn FnMut(&Path),
) -> Result<FilesRead, ReadError> {
    let patterns: Vec<PathBuf> = patterns
        .iter()
        .map(|pattern| {
            let path = Path::new(pattern.as_ref());
            std::path::absolute(path).map_err(|_| failed(path, "pattern is empty: name files"))
        })
        .collect::<Result<_, _>>()
        .map_err(|problem| ReadError(vec![problem]))?;
    let base = base(&patterns);
    let mut changed = base.clone();
    for _ in 0..ATTEMPTS {
        let found = find(&patterns, limits).map_err(ReadError)?;
        let texts = match texts(&found, checks.limits.bytes, limits.bytes, was_read) {
            Ok(texts) => texts,
            Err(Stopped::Changed(path)) => {
                changed = path;
                continue;
            }
            Err(Stopped::Failed(problems)) => return Err(ReadError(problems)),
        };
        let now = find(&patterns, limits).map_err(ReadError)?;
        if now == found {
            return parse(&base, texts, checks);
        }
        let differs = |(path, stamp): &(&PathBuf, &Stamp)| now.get(*path) != Some(stamp);
        if let Some((path, _)) = found.iter().find(differs) {
            changed = path.clone();
        }
    }
    let message =
        "changes each time that it is read: write it elsewhere and move it in when it is whole";
    Err(ReadError(vec![failed(&changed, message)]))
}

/// Finds the files that the patterns match now.
fn find(
    patterns: &[PathBuf],
    limits: &GlobLimits,
) -> Result<BTreeMap<PathBuf, Stamp>, Vec<ReadProblem>> {
    let mut found = BTreeMap::new();
    let mut problems = Vec::new();
    for pattern in patterns {
        let Some(text) = pattern.to_str() else {
            problems.push(failed(pattern, "pattern is not UTF-8: rename the folder"));
            continue;
        };
        let paths = match glob::glob_with(text, MATCHING) {
            Ok(paths) => paths,
            Err(error) => {
                let message = format!("pattern is wrong at character {}: {}", error.pos, error.msg);
                problems.push(failed(pattern, message));
                continue;
            }
        };
        let mut any = false;
        for path in paths {
            any = true;
            match path {
                Ok(path) => match Stamp::of(&path) {
                    Ok(Some(stamp)) => {
                        found.insert(path, stamp);
                    }
                    // The file was removed since the folder was listed.
                    Ok(None) => {}
                    Err(message) => problems.push(failed(&path, message)),
                },
                Err(error) => {
                    let message = format!("cannot list the folder: {}", error.error());
                    problems.push(failed(error.path(), message));
                }
            }
            if found.len() > limits.files {
                let message = format!("more than {} files match: name fewer", limits.files);
                problems.push(failed(pattern, message));
                return Err(problems);
            }
            if problems.len() >= MAX_PROBLEMS {
                return Err(problems);
            }
        }
        if !any && Pattern::escape(text) == text {
            problems.push(failed(pattern, "no such file: mend the name, or create it"));
        }
    }
    match problems.is_empty() {
        true => Ok(found),
        false => Err(problems),
    }
}

/// Why reading stopped.
enum Stopped {
    /// The file changed meanwhile; the reading can be repeated.
    Changed(PathBuf),
    Failed(Vec<ReadProblem>),
}

fn texts(
    found: &BTreeMap<PathBuf, Stamp>,
    max: usize,
    max_all: u64,
    was_read: &mut dyn FnMut(&Path),
) -> Result<Vec<(PathBuf, Vec<u8>)>, Stopped> {
    let mut texts = Vec::with_capacity(found.len());
    let mut problems = Vec::new();
    let mut bytes = 0;
    for (path, stamp) in found {
        match stable::read(path, stamp, max) {
            Ok(text) => {
                bytes += text.len() as u64;
                texts.push((path.clone(), text));
            }
            Err(Failure::Changed) => return Err(Stopped::Changed(path.clone())),
            Err(Failure::Message(message)) => problems.push(failed(path, message)),
        }
        was_read(path);
        if bytes > max_all {
            let message = format!("files hold more than {max_all} bytes together: name fewer");
            problems.push(failed(path, message));
            break;
        }
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
    }
    match problems.is_empty() {
        true => Ok(texts),
        false => Err(Stopped::Failed(problems)),
    }
}

fn parse(
    base: &Path,
    texts: Vec<(PathBuf, Vec<u8>)>,
    checks: &Checks<'_>,
) -> Result<FilesRead, ReadError> {
    let mut files: Vec<(Arc<str>, Arc<StoredFile>)> = Vec::with_capacity(texts.len());
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    for (path, text) in texts {
        let placed = |problem| ReadProblem {
            path: path.clone(),
            problem,
        };
        let name = path.strip_prefix(base).ok().and_then(Path::to_str);
        match (RuleFile::parse(&text, checks), name) {
            (Ok(parsed), Some(name)) => {
                files.push((name.into(), Arc::new(StoredFile::new(parsed.file))));
                let found = parsed.warnings.into_iter();
                warnings.extend(found.map(|warning| placed(warning.problem)));
            }
            (Ok(_), None) => problems.push(failed(&path, "name is not UTF-8: rename the file")),
            (Err(found), _) => problems.extend(found.into_iter().map(placed)),
        }
        warnings.truncate(MAX_PROBLEMS);
        if problems.len() >= MAX_PROBLEMS {
            problems.truncate(MAX_PROBLEMS);
            break;
        }
    }
    match problems.is_empty() {
        true => Ok(FilesRead {
            rules: TenantRules::new(files),
            warnings,
        }),
        false => Err(ReadError(problems)),
    }
}

/// The deepest folder that all patterns share.
fn base(patterns: &[PathBuf]) -> PathBuf {
    let folders = patterns.iter().map(|pattern| literal_folder(pattern));
    let common = folders.reduce(|a, b| {
        let same = a.components().zip(b.components());
        same.take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
    });
    common.unwrap_or_default()
}

/// The leading folders of a pattern, up to the first name with a wildcard, without the file's name.
fn literal_folder(pattern: &Path) -> PathBuf {
    let is_literal = |part: &Component<'_>| {
        let text = part.as_os_str().to_string_lossy();
        Pattern::escape(&text) == text
    };
    let parent = pattern.parent().unwrap_or(pattern);
    parent.components().take_while(is_literal).collect()
}

#[cfg(test)]
mod tests;
