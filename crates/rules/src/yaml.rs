//! Parses YAML to a tree of nodes with positions, and resolves scalars as Prometheus' YAML parser does.
//!
//! The tree is built from the events of `granit-parser` instead of by deserialisation, for three
//! reasons: all problems of a file are found and not only the first, plain and quoted scalars remain
//! distinct, and anchors, aliases and merge keys have the same meaning as in Prometheus. Most files need
//! only a small part of YAML, and are [read without events](plain). Nesting, nodes and bytes are bounded.

mod plain;
mod scalar;
mod strict;

use std::borrow::Cow;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span, StructureStyle, Tag};

use strict::Source;

pub(crate) use scalar::{Resolved, resolve};

/// Maximum nesting of collections; a rule file needs six levels.
pub(crate) const MAX_DEPTH: usize = 32;
/// Maximum size of text that is scanned again, in bytes, because of quoted scalars whose lines are
/// indented less than YAML 1.2 requires, which Prometheus accepts.
const MAX_RESCANNED: usize = 16 << 20;
/// Indentation that is deeper than any key.
const INDENT: &str = "                                                                        ";
/// Estimated length of the text of a node, in bytes; at worst the list of nodes grows.
const TYPICAL_NODE: usize = 40;
/// The prefix of the tags that are written `!!name`.
const CORE: &str = "tag:yaml.org,2002:";

/// Position in a file; line and column are counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

/// Index of a node in the tree.
pub(crate) type Id = u32;

/// Content of a node.
#[derive(Debug)]
pub(crate) enum Content<'t> {
    /// A scalar, `plain` if it is neither quoted nor a block.
    Scalar { text: Cow<'t, str>, plain: bool },
    /// A list.
    Sequence(Children),
    /// Alternating keys and values, in the order of the file.
    Mapping(Children),
    /// A reference to another node.
    Alias(Id),
}

/// Children of a collection: a range of the tree's list of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Children {
    start: Id,
    end: Id,
}

/// A node of the tree.
#[derive(Debug)]
pub(crate) struct Node<'t> {
    pub(crate) place: Place,
    pub(crate) content: Content<'t>,
    /// The tag, `!!int` rather than its long form.
    pub(crate) tag: Option<Box<str>>,
}

/// The first document of a file.
#[derive(Debug, Default)]
pub(crate) struct Tree<'t> {
    nodes: Vec<Node<'t>>,
    /// Children of all collections, one collection after the other.
    children: Vec<Id>,
    root: Option<Id>,
    /// Position of a second document, if there is one.
    pub(crate) second: Option<Place>,
}

impl<'t> Tree<'t> {
    /// Parses the first document, and passes it on. Fails with the first syntax error, or with every
    /// alias that has no anchor.
    pub(crate) fn parse<R>(
        text: &str,
        max_nodes: usize,
        then: impl FnOnce(&Tree<'_>) -> R,
    ) -> Result<R, Vec<(Place, String)>> {
        if let Some(tree) = plain::parse(text, max_nodes) {
            return Ok(then(&tree));
        }
        let mut text = Cow::Borrowed(text);
        let mut budget = MAX_RESCANNED;
        loop {
            let failure = match Tree::parse_once(&text, max_nodes) {
                Ok(tree) => return Ok(then(&tree)),
                Err(failure) => failure,
            };
            match failure {
                Failure::Outdented(offset) if budget >= text.len() => {
                    budget -= text.len();
                    text.to_mut().insert_str(offset, INDENT);
                }
                Failure::Outdented(offset) => {
                    let line = text[..offset].matches('\n').count() as u64 + 1;
                    let message = "lines of a quoted text begin left of its key: indent them";
                    return Err(vec![(Place { line, column: 1 }, message.to_owned())]);
                }
                Failure::Problems(problems) => return Err(problems),
            }
        }
    }

    fn parse_once(text: &'t str, max_nodes: usize) -> Result<Self, Failure> {
        let mut options = granit_parser::options! {
            emit_anchor_events: true,
            emit_unresolved_aliases: true,
            flow_nesting_limit: MAX_DEPTH,
            block_nesting_limit: MAX_DEPTH,
        };
        options.set_emit_comments(false);
        let mut builder = Builder::new(text, max_nodes);
        builder.problems = strict::directives(text);
        let mut events = Parser::new_from_str_with_options(text, options);
        let mut ended = false;
        for event in &mut events {
            let (event, span) = match event {
                Ok(event) => event,
                // An error after the first document only shows that there is a second one.
                Err(error) if ended => {
                    builder.tree.second = Some(place(error.marker()));
                    break;
                }
                Err(error) => {
                    if *error.kind() == ErrorKind::InvalidQuotedScalarIndent
                        && let Some(offset) = error.marker().byte_offset()
                    {
                        return Err(Failure::Outdented(offset));
                    }
                    let reason = format!("invalid YAML: {}", error.info());
                    builder.problems.push((place(error.marker()), reason));
                    break;
                }
            };
            match event {
                Event::DocumentEnd => ended = true,
                Event::DocumentStart(..) if ended => {
                    builder.tree.second = Some(place(&span.start));
                    break;
                }
                event => builder.take(event, &span).map_err(Failure::Problems)?,
            }
        }
        match builder.problems.is_empty() {
            true => Ok(builder.tree),
            false => Err(Failure::Problems(builder.problems)),
        }
    }

    /// Root node of the document; `None` if the file is empty.
    pub(crate) fn root(&self) -> Option<Id> {
        self.root
    }

    /// The node at an index, without following aliases.
    pub(crate) fn raw(&self, id: Id) -> &Node<'t> {
        &self.nodes[id as usize]
    }

    /// The children of a collection.
    pub(crate) fn children(&self, children: Children) -> &[Id] {
        &self.children[children.start as usize..children.end as usize]
    }

    /// Follows an alias to its target; other nodes are their own target.
    pub(crate) fn target(&self, id: Id) -> Id {
        match self.raw(id).content {
            Content::Alias(target) => target,
            _ => id,
        }
    }
}

/// Why a text could not be parsed.
enum Failure {
    Problems(Vec<(Place, String)>),
    /// A line of a quoted scalar begins at this byte, indented less than YAML 1.2 requires.
    Outdented(usize),
}

fn place(mark: &granit_parser::Marker) -> Place {
    Place {
        line: mark.line() as u64,
        column: mark.col() as u64 + 1,
    }
}

/// Builds the tree from events.
struct Builder<'a> {
    text: &'a str,
    tree: Tree<'a>,
    /// Unfinished collections, outermost first.
    open: Vec<Open>,
    /// The children of unfinished collections so far, of the outermost first.
    pending: Vec<Id>,
    /// Nodes by the number of their anchor.
    anchors: Vec<Option<Id>>,
    problems: Vec<(Place, String)>,
    max_nodes: usize,
}

/// An unfinished collection.
struct Open {
    id: Id,
    /// Index of its first child in the list of pending ones.
    first: usize,
    is_block_mapping: bool,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str, max_nodes: usize) -> Self {
        Self {
            text,
            tree: Tree {
                nodes: Vec::with_capacity((text.len() / TYPICAL_NODE).min(max_nodes)),
                ..Tree::default()
            },
            open: Vec::new(),
            pending: Vec::new(),
            anchors: Vec::new(),
            problems: Vec::new(),
            max_nodes,
        }
    }

    fn take(&mut self, event: Event<'a>, span: &Span) -> Result<(), Vec<(Place, String)>> {
        let place = place(&span.start);
        let absent = || Content::Scalar {
            text: Cow::Borrowed(""),
            plain: true,
        };
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let source = Source {
                    text: self.text,
                    range: span.byte_range().unwrap_or_default(),
                };
                let at_key = self.open.last().is_some_and(|open| {
                    let children = self.pending.len() - open.first;
                    open.is_block_mapping && children.is_multiple_of(2)
                });
                let refused = strict::escape(&source, style)
                    .or_else(|| strict::key(&source).filter(|_| at_key));
                if let Some(message) = refused {
                    self.problems.push((place, message.to_owned()));
                }
                let content = Content::Scalar {
                    text: strict::text(&source, text, style),
                    plain: style == ScalarStyle::Plain,
                };
                self.add(place, content, tag.as_deref(), anchor)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                let content = Content::Sequence(Children::default());
                let id = self.add(place, content, tag.as_deref(), anchor)?;
                self.open(id, false);
            }
            Event::MappingStart(style, anchor, tag) => {
                let content = Content::Mapping(Children::default());
                let id = self.add(place, content, tag.as_deref(), anchor)?;
                self.open(id, style == StructureStyle::Block);
            }
            Event::DocumentStart(_, Some(version)) if (version.major, version.minor) != (1, 1) => {
                let message = "Prometheus reads YAML 1.1 alone: remove the %YAML directive";
                self.problems.push((place, message.to_owned()));
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => {
                let target = self.anchors.get(anchor).copied().flatten();
                let content = target.map_or_else(absent, Content::Alias);
                self.add(place, content, None, 0)?;
            }
            Event::Anchor(_, name) => {
                let refused = strict::anchor(&name).map(str::to_owned);
                self.problems.extend(refused.map(|it| (place, it)));
            }
            Event::UnresolvedAlias(name) => {
                let message = format!(
                    "alias *{name} has no anchor before it: define &{name} above, or quote the value"
                );
                self.problems.push((place, message));
                self.add(place, absent(), None, 0)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, id: Id, is_block_mapping: bool) {
        self.open.push(Open {
            id,
            first: self.pending.len(),
            is_block_mapping,
        });
    }

    /// Ends the innermost unfinished collection.
    fn close(&mut self) {
        let Some(open) = self.open.pop() else { return };
        // Each child is a node, whose number is an ID.
        let start = self.tree.children.len() as Id;
        self.tree.children.extend(self.pending.drain(open.first..));
        let end = self.tree.children.len() as Id;
        match &mut self.tree.nodes[open.id as usize].content {
            Content::Sequence(children) | Content::Mapping(children) => {
                *children = Children { start, end };
            }
            Content::Scalar { .. } | Content::Alias(_) => {}
        }
    }

    fn add(
        &mut self,
        place: Place,
        content: Content<'a>,
        tag: Option<&Tag>,
        anchor: usize,
    ) -> Result<Id, Vec<(Place, String)>> {
        let count = self.tree.nodes.len();
        let id = Id::try_from(count)
            .ok()
            .filter(|_| count < self.max_nodes)
            .ok_or_else(|| vec![(place, too_many_nodes(self.max_nodes))])?;
        let tag = tag.map(short_tag).filter(|tag| &**tag != "!");
        self.tree.nodes.push(Node {
            place,
            content,
            tag,
        });
        if anchor > 0 {
            if self.anchors.len() <= anchor {
                self.anchors.resize(anchor + 1, None);
            }
            self.anchors[anchor] = Some(id);
        }
        match self.open.last() {
            Some(_) => self.pending.push(id),
            None => self.tree.root = Some(id),
        }
        Ok(id)
    }
}

/// Error for a file with too many nodes after expanding aliases.
pub(crate) fn too_many_nodes(max: usize) -> String {
    format!("file holds more than {max} YAML nodes, aliases expanded: split it")
}

/// The short form `!!name` of YAML's own tags; other tags are unchanged.
fn short_tag(tag: &Tag) -> Box<str> {
    let whole = format!("{}{}", tag.handle(), tag.suffix());
    match whole.strip_prefix(CORE) {
        Some(name) => format!("!!{name}").into(),
        None => whole.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses a text whose tree a test looks at.
    fn parse(text: &str) -> Result<Tree<'_>, Vec<(Place, String)>> {
        Tree::parse_once(text, 1000).map_err(|failure| match failure {
            Failure::Problems(problems) => problems,
            Failure::Outdented(offset) => panic!("{text}: {offset}"),
        })
    }

    #[test]
    fn all_aliases_without_an_anchor_are_named() {
        let problems = parse("a: *x\nb: &y 1\nc: [*y, *z]\n").unwrap_err();
        let lines: Vec<_> = problems.iter().map(|(place, _)| place.line).collect();
        assert_eq!(lines, [1, 3], "{problems:?}");
        assert!(problems[1].1.contains("*z"));
    }

    #[test]
    fn an_alias_names_the_latest_anchor_and_may_stand_within_it() {
        let tree = parse("&a [1, &b 2, *b, *a]").unwrap();
        let root = tree.root().unwrap();
        let Content::Sequence(children) = &tree.raw(root).content else {
            panic!("{tree:?}")
        };
        let children = tree.children(*children);
        assert_eq!(tree.target(children[2]), children[1]);
        assert_eq!(tree.target(children[3]), root);
    }

    #[test]
    fn anchors_have_the_names_that_prometheus_reads() {
        for name in ["a", "Z-9_", "-", "7"] {
            assert!(
                parse(&format!("a: &{name} 1\nb: *{name}\n")).is_ok(),
                "{name}"
            );
        }
        for name in ["a.b", "a:", "a:b", "a/b", "\u{e9}", "a!", "a#"] {
            for text in [
                format!("a: &{name} 1\nb: *{name}\n"),
                format!("a: [&{name} {{b: c}}]\n"),
                format!("&{name}\na: b\n"),
            ] {
                let problems = parse(&text).unwrap_err();
                assert!(problems[0].1.contains("anchor"), "{text}: {problems:?}");
            }
        }
    }

    #[test]
    fn depth_and_nodes_are_bounded() {
        let deep = "[".repeat(100_000);
        assert!(parse(&deep).is_err());
        let blocks: String = (0..200).map(|i| " ".repeat(i) + "a:\n").collect();
        assert!(parse(&blocks).is_err());
        let wide = format!("[{}]", "1,".repeat(1000));
        assert!(parse(&wide).unwrap_err()[0].1.contains("1000 YAML nodes"));
    }

    #[test]
    fn a_second_document_is_seen_and_not_read() {
        let tree = parse("a: 1\n---\nb: [").unwrap();
        assert_eq!(tree.second.unwrap().line, 2);
        assert!(parse("a: 1\n...\n").unwrap().second.is_none());
        assert!(parse("").unwrap().root().is_none());
    }
}
