//! Reads the configuration's files, and locates places in them.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use metrifold_base::{FileError, read_file as read_file_of};
use metrifold_files::{PathError, paths};

use super::diagnostic::Diagnostic;

/// The largest file that is read: several 100,000 tenants.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// A file, or some of its lines, in the form that may be shown: secrets are masked, all positions
/// stay the same.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceFile {
    name: Arc<str>,
    shown: String,
    /// Runs of lines of the file, sorted; none if the file is whole.
    runs: Vec<Run>,
}

/// Consecutive lines of a file, of which others are left out before and behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Position of the first line among those that are shown.
    pub(crate) at: usize,
    /// Number of lines before it in the file.
    pub(crate) line: usize,
    /// Its position in the file.
    pub(crate) offset: usize,
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
    pub(crate) name: Arc<str>,
    pub(crate) text: String,
}

impl Text {
    /// The text without a byte order mark.
    pub(crate) fn input(&self) -> &str {
        self.text.strip_prefix('\u{feff}').unwrap_or(&self.text)
    }
}

impl SourceFile {
    /// A file whose text has its secrets masked already.
    pub(crate) fn new(name: &Arc<str>, shown: String) -> Self {
        Self::of_lines(name, shown, Vec::new())
    }

    /// Lines of a file whose secrets are masked already.
    pub(crate) fn of_lines(name: &Arc<str>, shown: String, runs: Vec<Run>) -> Self {
        Self {
            name: Arc::clone(name),
            shown,
            runs,
        }
    }

    /// The run of lines that holds a position.
    fn run(&self, at: usize) -> Run {
        let behind = self.runs.partition_point(|run| run.at <= at);
        let whole = Run {
            at: 0,
            line: 0,
            offset: 0,
        };
        let last = behind.checked_sub(1);
        last.map_or(whole, |last| self.runs[last])
    }

    /// The path as the user gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path, for other lines of the same file.
    pub(crate) fn shared_name(&self) -> &Arc<str> {
        &self.name
    }
}

impl Place {
    /// A place; a span outside the file is clamped to it.
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
        let run = self.file.run(self.span.start);
        let before = &self.file.shown.as_bytes()[run.at..self.span.start];
        1 + run.line + before.iter().filter(|byte| **byte == b'\n').count()
    }

    /// The column in characters, from 1.
    pub fn column(&self) -> usize {
        let (start, _) = self.line_range();
        1 + self.file.shown[start..self.span.start].chars().count()
    }

    /// The text of the line, and the marked range in it.
    pub(crate) fn excerpt(&self) -> (&str, Range<usize>) {
        let (start, end) = self.line_range();
        let from = self.span.start - start;
        let to = self.span.end.min(end).max(self.span.start) - start;
        // A masked comment leaves only trailing blanks.
        let line = &self.file.shown[start..end];
        let line = &line[..line.trim_end().len().max(to).max(from)];
        (line, from..to)
    }

    /// Orders places by file and position.
    pub(crate) fn order(&self) -> (&str, usize) {
        let run = self.file.run(self.span.start);
        (&self.file.name, run.offset + (self.span.start - run.at))
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

/// Reads every file that the patterns name, sorted, each file once.
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

/// Error message and advice for a wrong pattern.
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

/// Converts bytes to text, or reports the place of the first invalid byte.
pub(crate) fn from_bytes(name: String, bytes: Vec<u8>) -> Result<Text, Box<Diagnostic>> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Text {
            name: name.into(),
            text,
        }),
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
            "write the configuration to a regular file: it is read again when it changes"
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
            .map(|text: Text| text.name.rsplit('/').next().unwrap_or_default().to_owned())
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
