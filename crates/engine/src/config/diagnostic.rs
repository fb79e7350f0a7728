//! Errors and warnings about a configuration, with their places and advice.

use std::fmt;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::secrets::Redactions;
use super::source::Place;

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// The configuration can be used, but it hardly does what its author intended.
    Warning,
}

/// A finding in the configuration. Values that may be secret are masked in all of its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Severity of the finding.
    pub severity: Severity,
    /// Statement of the problem, lowercase, without a full stop.
    pub message: String,
    /// Place of the problem; `None` if no file causes it.
    pub place: Option<Place>,
    /// A second place that explains the first, with its text.
    pub related: Option<(Place, String)>,
    /// Advice on how to mend the problem.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error.
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            place: None,
            related: None,
            help: None,
        }
    }

    /// A warning.
    pub fn warning(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(message)
        }
    }

    /// Sets the place.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// Sets the advice.
    #[must_use]
    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Sets the second place and its text.
    #[must_use]
    pub(crate) fn with_related(mut self, place: Place, message: impl Into<String>) -> Self {
        self.related = Some((place, message.into()));
        self
    }

    /// Masks secret values in all parts.
    pub(crate) fn redact(&mut self, redactions: &Redactions) {
        let related = self.related.as_mut().map(|(_, text)| text);
        let texts = [related, self.help.as_mut()];
        for text in texts.into_iter().flatten().chain([&mut self.message]) {
            *text = redactions.apply(text);
        }
    }

    /// Renders the finding for people, without a final newline.
    pub fn render(&self, color: bool) -> String {
        let (level, help) = match self.severity {
            Severity::Error => (Level::ERROR, Level::HELP),
            Severity::Warning => (Level::WARNING, Level::HELP),
        };
        let mut group = Group::with_title(level.primary_title(&*self.message));
        if let Some(place) = &self.place {
            group = group.element(snippet(place, AnnotationKind::Primary));
        }
        if let Some(text) = &self.help
            && self.related.is_none()
        {
            group = group.element(help.message(&**text));
        }
        let mut report = vec![group];
        if let Some((place, message)) = &self.related {
            let mut note = Group::with_title(Level::NOTE.secondary_title(&**message))
                .element(snippet(place, AnnotationKind::Context));
            if let Some(text) = &self.help {
                note = note.element(Level::HELP.message(&**text));
            }
            report.push(note);
        }
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        renderer.decor_style(DecorStyle::Ascii).render(&report)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

fn snippet(place: &Place, kind: AnnotationKind) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
    let (line, span) = place.excerpt();
    Snippet::source(line)
        .line_start(place.line())
        .path(place.file())
        .annotation(kind.span(span))
}

/// Sorts findings in reading order: errors first, then by file and position.
pub(crate) fn sort(list: &mut [Diagnostic]) {
    list.sort_by(|a, b| {
        let key = |diagnostic: &Diagnostic| {
            let place = diagnostic.place.as_ref().map(Place::order);
            place.map(|(file, at)| (file.to_owned(), at))
        };
        (a.severity, key(a)).cmp(&(b.severity, key(b)))
    });
}
