//! Where configuration text comes from, and places in it.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use metrifold_base::{FileError, read_file as read_file_of};
use metrifold_files::{PathError, paths};

use super::diagnostic::Diagnostic;

/// The largest file that is read; a configuration is nowhere near it.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// A file as it may be shown: secrets are masked, everything else stands where it stood.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    name: String,
    shown: String,
}

/// A range of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    file: Arc<SourceFile>,
    span: Range<usize>,
}

/// A file as it was read.
#[derive(Debug)]
pub(crate) struct Text {
    pub(crate) name: String,
    pub(crate) text: String,
}

impl SourceFile {
    /// A file with its text, in which secrets are masked already.
    pub(crate) fn new(name: impl Into<String>, shown: String) -> Self {
        Self {
            name: name.into(),
            shown,
        }
    }

    /// The path as the user gave it.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Place {
    /// A place; a span that is not in the file is moved into it.
    pub(crate) fn new(file: &Arc<SourceFile>, span: Range<usize>) -> Self {
        let text = &file.shown;
        let start = floor(text, span.start);
        let end = floor(text, span.end.max(start));
        Self {
            file: Arc::clone(file),
            span: start..end,
        }
    }

    /// The path of the file.
    pub fn file(&self) -> &str {
        &self.file.name
    }

    /// The line, from 1.
    pub fn line(&self) -> usize {
        let before = &self.file.shown.as_bytes()[..self.span.start];
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }

    /// The column in characters, from 1.
    pub fn column(&self) -> usize {
        let (start, _) = self.line_range();
        1 + self.file.shown[start..self.span.start].chars().count()
    }

    /// The line's text, and the part of it that is meant.
    pub(crate) fn excerpt(&self) -> (&str, Range<usize>) {
        let (start, end) = self.line_range();
        let from = self.span.start - start;
        let to = self.span.end.min(end).max(self.span.start) - start;
        // Where a comment was, only blanks are left.
        let line = &self.file.shown[start..end];
        let line = &line[..line.trim_end().len().max(to).max(from)];
        (line, from..to)
    }

    /// Orders places by file and position.
    pub(crate) fn order(&self) -> (&str, usize) {
        (&self.file.name, self.span.start)
    }

    fn line_range(&self) -> (usize, usize) {
        let text = &self.file.shown;
        let start = text[..self.span.start].rfind('\n').map_or(0, |at| at + 1);
        let end = text[self.span.start..]
            .find('\n')
            .map_or(text.len(), |at| self.span.start + at);
        // A carriage return belongs to the line's end, unless the place is that end.
        if end > self.span.start && text.as_bytes()[end - 1] == b'\r' {
            (start, end - 1)
        } else {
            (start, end)
        }
    }
}

/// The nearest character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Reads every file that the patterns name, in order and each once.
pub(crate) fn read(patterns: &[String], errors: &mut Vec<Diagnostic>) -> Vec<Text> {
    let mut texts = Vec::new();
    let mut wrong = Vec::new();
    for path in paths(patterns, &mut wrong) {
        match read_file(&path) {
            Ok(text) => texts.push(text),
            Err(error) => errors.push(*error),
        }
    }
    errors.extend(wrong.into_iter().map(describe));
    texts
}

/// What a pattern is wrong with, and what to do about it.
fn describe(error: PathError) -> Diagnostic {
    match error {
        PathError::Unreadable { path, error } => *cannot_read(&path, error),
        PathError::NoMatch(_) => Diagnostic::error(error.to_string())
            .with_help("name an existing file or directory with --config"),
        PathError::NotAPattern { .. } | PathError::EmptyFolder(_) => {
            Diagnostic::error(error.to_string())
        }
    }
}

fn read_file(path: &Path) -> Result<Text, Box<Diagnostic>> {
    let bytes = read_file_of(path, MAX_FILE_BYTES).map_err(|error| cannot_read(path, error))?;
    from_bytes(path.display().to_string(), bytes)
}

/// Takes foreign bytes for text, or says where they are not.
pub(crate) fn from_bytes(name: String, bytes: Vec<u8>) -> Result<Text, Box<Diagnostic>> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Text { name, text }),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let line = 1 + error.as_bytes()[..valid]
                .iter()
                .filter(|byte| **byte == b'\n')
                .count();
            Err(Diagnostic::error(format!(
                "{name} is not UTF-8: line {line} holds the byte {:#04x}",
                error.as_bytes().get(valid).copied().unwrap_or_default()
            ))
            .with_help("save the file as UTF-8")
            .into())
        }
    }
}

fn cannot_read(path: &Path, error: FileError) -> Box<Diagnostic> {
    let diagnostic = Diagnostic::error(format!("cannot read {}: {error}", path.display()));
    let help = match error {
        _ if error.is_absent() => "name an existing file or directory with --config",
        FileError::NotRegular => {
            "write what it holds to a file: a configuration is read again when it changes"
        }
        FileError::TooLarge(_) => "split it: a configuration is far smaller",
        FileError::Io(_) => return diagnostic.into(),
    };
    diagnostic.with_help(help).into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn names(patterns: &[String]) -> (Vec<String>, Vec<String>) {
        let mut errors = Vec::new();
        let texts = read(patterns, &mut errors);
        let names = texts
            .into_iter()
            .map(|text| text.name.rsplit('/').next().unwrap_or_default().to_owned())
            .collect();
        (names, errors.into_iter().map(|e| e.message).collect())
    }

    #[test]
    fn files_directories_and_globs_are_read_sorted_and_once() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.toml", "a.toml", "c.txt", ".hidden.toml"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let root = dir.path().display().to_string();
        let (found, errors) = names(&[
            format!("{root}/b.toml"),
            root.clone(),
            format!("{root}/*.t?ml"),
        ]);
        assert_eq!(found, ["b.toml", "a.toml", ".hidden.toml"]);
        assert!(errors.is_empty(), "{errors:?}");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().display().to_string();
        let (_, errors) = names(&[
            format!("{root}/missing.toml"),
            format!("{root}/*.toml"),
            root.clone(),
        ]);
        assert_eq!(
            errors,
            [
                format!("cannot read {root}/missing.toml: no such file or directory"),
                format!("no file matches \"{root}/*.toml\""),
                format!("directory {root} holds no *.toml file"),
            ]
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_with_their_line() {
        let error = from_bytes("x.toml".into(), b"a = 1\nb = \"\xff\"".to_vec()).unwrap_err();
        assert_eq!(
            error.message,
            "x.toml is not UTF-8: line 2 holds the byte 0xff"
        );
    }
}
