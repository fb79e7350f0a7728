//! Reads the tables of which there may be very many, such as `[tenants.NAME]`, one at a time.
//!
//! A parsed document takes some forty times the memory of its text. A file of 100,000 tenants is
//! therefore divided at the headers of such tables, and each section is parsed, read and dropped
//! before the next one. A reload takes over the tables whose text and files are unchanged, without
//! parsing them.
//!
//! The result is that of the whole file: one with unusual headers, with a table in two places, with
//! strings of several lines or with a syntax error anywhere is not read in sections.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::canonical::Print;
use super::diagnostic::Diagnostic;
use super::document::{self, Around, Document, Global};
use super::environment::Environment;
use super::globals::{self, Read};
use super::secrets::{Redactions, Substituted};
use super::source::{Place, Run, SourceFile, Text};
use super::states::States;
use super::tables::TableInfo;
use super::work::{Name, Work, count};

/// A file that is divided into sections.
pub(crate) struct Divided<'i> {
    /// The lines that belong to no section.
    pub(crate) rest: String,
    /// Their places in the file.
    pub(crate) runs: Vec<Run>,
    sections: Vec<Section<'i>>,
    /// The headers of the sections.
    headers: Arc<SourceFile>,
}

/// Consecutive lines of a file that declare one table.
struct Section<'i> {
    info: &'static TableInfo,
    /// Full name of the table, such as `tenants.acme`.
    name: &'i str,
    text: &'i str,
    run: Run,
    /// Range of the table's own name in the headers.
    header: Range<usize>,
}

/// Divides the files that can be read in sections.
pub(crate) fn divide(texts: &[Text]) -> Vec<Option<Divided<'_>>> {
    texts.iter().map(Divided::of).collect()
}

impl<'i> Divided<'i> {
    /// Divides a file; `None` if it is read as a whole.
    fn of(file: &'i Text) -> Option<Self> {
        let text = file.input();
        // A line of such a string may look like a header.
        if text.contains("\"\"\"") || text.contains("'''") {
            return None;
        }
        let kinds = TableInfo::all().into_iter().filter(|info| info.many);
        let kinds: Vec<&'static TableInfo> = kinds.collect();
        let mut dividing = Dividing::default();
        let (mut at, mut line) = (0, 0);
        for text in text.split_inclusive('\n') {
            if let Some(header) = header(text) {
                let run = Run {
                    at: 0,
                    line,
                    offset: at,
                };
                dividing.header(table(header, &kinds), run);
            }
            at += text.len();
            line += 1;
        }
        let end = Run {
            at: 0,
            line,
            offset: at,
        };
        dividing.header(None, end);
        dividing.finish(file, text)
    }

    /// Whether the rest of the file has a table of a kind that sections have.
    pub(crate) fn is_continued_in(&self, rest: &DeTable<'_>) -> bool {
        let mut all = TableInfo::all().into_iter().filter(|info| info.many);
        all.any(|info| rest.contains_key(info.name))
    }

    /// Whether an earlier file has a table of the same name.
    pub(crate) fn is_declared_in(&self, names: &HashMap<Name, Place>) -> bool {
        let mut sections = self.sections.iter();
        !names.is_empty() && sections.any(|section| names.contains_key(&Name::from(section.name)))
    }

    /// The places of the tables by their full names.
    pub(crate) fn places(&self) -> impl Iterator<Item = (Name, Place)> {
        let sections = self.sections.iter();
        sections.map(|section| (section.name.into(), self.place(section)))
    }

    fn place(&self, section: &Section<'_>) -> Place {
        Place::new(&self.headers, section.header.clone())
    }
}

/// Sections that were found so far.
#[derive(Default)]
struct Dividing<'i> {
    found: Vec<(&'static TableInfo, &'i str, Run, Run)>,
    open: Option<(&'static TableInfo, &'i str, Run)>,
}

impl<'i> Dividing<'i> {
    /// Continues at a header: of a table that has a section, or of another one.
    fn header(&mut self, table: Option<(&'static TableInfo, &'i str)>, here: Run) {
        let name = |(_, name, _): &(_, &'i str, _)| *name;
        if table.is_some() && table.map(|(_, name)| name) == self.open.as_ref().map(name) {
            return;
        }
        if let Some((info, name, start)) = self.open.take() {
            self.found.push((info, name, start, here));
        }
        self.open = table.map(|(info, name)| (info, name, here));
    }

    fn finish(self, file: &Text, text: &'i str) -> Option<Divided<'i>> {
        let mut names = HashSet::with_capacity(self.found.len());
        if self.found.is_empty() || !self.found.iter().all(|(_, name, ..)| names.insert(*name)) {
            return None;
        }
        let (mut rest, mut runs) = (String::new(), Vec::new());
        let (mut headers, mut lines) = (String::new(), Vec::with_capacity(self.found.len()));
        let mut sections = Vec::with_capacity(self.found.len());
        let mut done = 0;
        for (info, name, start, end) in self.found {
            rest.push_str(&text[done..start.offset]);
            // Sections that follow each other leave one gap.
            if runs.last().is_some_and(|run: &Run| run.at == rest.len()) {
                runs.pop();
            }
            runs.push(Run {
                at: rest.len(),
                ..end
            });
            done = end.offset;
            let text = &text[start.offset..end.offset];
            let header = text.lines().next().unwrap_or_default();
            lines.push(Run {
                at: headers.len(),
                ..start
            });
            let own = header.find(name).unwrap_or_default() + info.name.len() + 1;
            let own = headers.len() + own;
            sections.push(Section {
                info,
                name,
                text,
                run: start,
                header: own..own + name.len() - info.name.len() - 1,
            });
            headers.push_str(header);
            headers.push('\n');
        }
        rest.push_str(&text[done..]);
        Some(Divided {
            rest,
            runs,
            sections,
            headers: Arc::new(SourceFile::of_lines(&file.name, headers, lines)),
        })
    }
}

/// What is behind the opening bracket of a line that may be a header.
fn header(line: &str) -> Option<&str> {
    let inner = line.trim_start_matches([' ', '\t']).strip_prefix('[')?;
    Some(inner.strip_prefix('[').unwrap_or(inner))
}

/// The table that a header of the simplest form is about, with its full name.
fn table<'i>(
    header: &'i str,
    kinds: &[&'static TableInfo],
) -> Option<(&'static TableInfo, &'i str)> {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let end = header.find(|c| !bare(c) && c != '.')?;
    let (path, behind) = header.split_at(end);
    let behind = behind.strip_prefix(']')?;
    let behind = behind.strip_prefix(']').unwrap_or(behind).trim_start();
    if !behind.is_empty() && !behind.starts_with('#') {
        return None;
    }
    let info = kinds.iter().find(|info| {
        let rest = path.strip_prefix(info.name);
        rest.is_some_and(|rest| rest.starts_with('.'))
    })?;
    let own = &path[info.name.len() + 1..];
    if own.split('.').any(str::is_empty) {
        return None;
    }
    let length = own.find('.').unwrap_or(own.len());
    Some((info, &path[..info.name.len() + 1 + length]))
}

/// Inputs of reading a configuration table by table.
pub(crate) struct Sections<'a, 'k> {
    pub(crate) environment: &'a dyn Environment,
    /// Whether the files that tables name may be read.
    pub(crate) files: bool,
    pub(crate) states: &'a mut States<'k>,
}

/// Tables of sections.
#[derive(Default)]
pub(crate) struct ReadSections<'i> {
    pub(crate) tables: Vec<Read>,
    /// Secret values of sections with errors or warnings.
    pub(crate) redactions: Vec<Redactions>,
    /// Texts of other sections with secret values.
    pub(crate) secret: Vec<&'i str>,
    /// Whether a section has errors, which have been reported.
    pub(crate) refused: bool,
}

impl Sections<'_, '_> {
    /// Reads the sections of a file; `None` if one of them has a syntax error.
    pub(crate) fn read<'i>(
        &mut self,
        divided: &Divided<'i>,
        found: &mut Vec<Diagnostic>,
    ) -> Option<ReadSections<'i>> {
        let mut read = ReadSections::default();
        read.tables.reserve(divided.sections.len());
        let file = &divided.headers;
        // No place in it is ever shown: a section with errors is read again.
        let hidden = Arc::new(SourceFile::new(file.shared_name(), String::new()));
        for section in &divided.sections {
            let place = divided.place(section);
            let simple = !section.text.contains('$');
            let text = Print::of([file.name().as_bytes(), section.text.as_bytes()]);
            let table = match simple {
                true => self
                    .unchanged(section.name, text, &place)
                    .or_else(|| self.quickly(section, &place, &hidden)),
                false => None,
            };
            let table = match table {
                Some(read) => Some(read),
                None => self.carefully(section, file.shared_name(), &mut read, found)?,
            };
            let Some(mut table) = table else {
                read.refused = true;
                continue;
            };
            // The text with that of its errors is not kept for the sake of the table's name.
            table.place = place;
            if simple && let Some(own) = Arc::get_mut(&mut table.table) {
                own.text = Some(text);
            }
            if table.table.secret {
                read.secret.push(section.text);
            }
            read.tables.push(table);
        }
        Some(read)
    }

    /// The table of the running configuration, if it was read from the same text and its files have
    /// the same content.
    fn unchanged(&mut self, name: &str, text: Print, place: &Place) -> Option<Read> {
        let (name, table) = self.states.before?.0.get_key_value(name)?;
        if table.text != Some(text) || !self.files {
            return None;
        }
        let files = table.files.iter();
        let same = files.map(|(file, state)| self.states.of(file).1 == *state);
        // All are looked at, so that all are known to be named.
        let same = same.fold(true, |all, same| all & same);
        same.then(|| Read {
            name: name.clone(),
            table: table.clone(),
            place: place.clone(),
            resources: table.config.resources(),
        })
    }

    /// Reads a section if it has no errors.
    fn quickly(
        &mut self,
        section: &Section<'_>,
        place: &Place,
        hidden: &Arc<SourceFile>,
    ) -> Option<Read> {
        count(Work::Parsed, section.text.len());
        let root = DeTable::parse(section.text).ok()?.into_inner();
        let secret = !Redactions::of(&root, &Substituted::new()).is_empty();
        let (_, kind) = root.into_iter().next()?;
        let DeValue::Table(tables) = kind.into_inner() else {
            return None;
        };
        let (key, value) = tables.into_iter().next()?;
        let global = Global {
            name: section.name.into(),
            key,
            place: place.clone(),
            value,
            around: Around {
                file: Arc::clone(hidden),
                removed: Vec::new(),
            },
        };
        let mut errors = Vec::new();
        let read = globals::table(section.info, global, self.files, self.states, &mut errors);
        let read = read.filter(|_| errors.is_empty());
        read.map(|read| read.with_secrets(secret))
    }

    /// Reads a section and reports its errors. The inner `None` stands for a table with errors.
    fn carefully(
        &mut self,
        section: &Section<'_>,
        file: &Arc<str>,
        all: &mut ReadSections<'_>,
        found: &mut Vec<Diagnostic>,
    ) -> Option<Option<Read>> {
        let lines = (file, section.text, vec![section.run]);
        let parsed = document::parse(lines, self.environment, found)?;
        let mut own = Document::default();
        document::add(&mut own, parsed, found);
        let secret = own.redactions.iter().any(|found| !found.is_empty());
        all.redactions.append(&mut own.redactions);
        let (info, global) = match own.tables.pop() {
            Some(table) => table,
            None => return Some(None),
        };
        let read = globals::table(info, global, self.files, self.states, found);
        Some(read.map(|read| read.with_secrets(secret)))
    }
}

#[cfg(test)]
mod tests;
