//! YAML as a tree of nodes with their places, and scalars as Prometheus' reader resolves them.
//!
//! The events of `granit-parser` are collected rather than deserialised, for three reasons: all
//! problems of a file are found and not only the first, plain and quoted scalars stay apart, and
//! anchors, aliases and merge keys mean what they mean to Prometheus. Nothing recurses: nesting,
//! nodes and bytes are bounded.

mod scalar;
mod strict;

use std::borrow::Cow;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span, StructureStyle, Tag};

use strict::Source;

pub(crate) use scalar::{Resolved, resolve};

/// The deepest nesting of collections. A rule file needs six.
pub(crate) const MAX_DEPTH: usize = 32;
/// How much text is scanned again, in bytes, for quoted texts whose lines begin left of where
/// version 1.2 of YAML has them and Prometheus does not mind.
const MAX_RESCANNED: usize = 16 << 20;
/// Indentation that is deeper than any key.
const INDENT: &str = "                                                                        ";
/// The prefix of the tags that are written `!!name`.
const CORE: &str = "tag:yaml.org,2002:";

/// Where something stands, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

/// A node by its number in the tree.
pub(crate) type Id = u32;

/// What a node is.
#[derive(Debug)]
pub(crate) enum Content {
    /// A scalar, `plain` if it is neither quoted nor a block.
    Scalar { text: Box<str>, plain: bool },
    /// A list.
    Sequence(Box<[Id]>),
    /// Keys and values, alternating, as they stand.
    Mapping(Box<[Id]>),
    /// Another name of a node, which is none itself.
    Alias(Id),
}

/// A node of the tree.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) content: Content,
    /// The tag, `!!int` rather than its long form.
    pub(crate) tag: Option<Box<str>>,
}

/// The first document of a file.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    root: Option<Id>,
    /// Where a second document begins.
    pub(crate) second: Option<Place>,
}

impl Tree {
    /// Reads the first document. Fails with all that can be told at once: where the syntax is
    /// broken, or each alias that has no anchor.
    pub(crate) fn parse(text: &str, max_nodes: usize) -> Result<Self, Vec<(Place, String)>> {
        let mut text = Cow::Borrowed(text);
        let mut budget = MAX_RESCANNED;
        loop {
            match Self::parse_once(&text, max_nodes) {
                Err(Failure::Outdented(offset)) if budget >= text.len() => {
                    budget -= text.len();
                    text.to_mut().insert_str(offset, INDENT);
                }
                Err(Failure::Outdented(offset)) => {
                    let line = text[..offset].matches('\n').count() as u64 + 1;
                    let message = "lines of a quoted text begin left of its key: indent them";
                    return Err(vec![(Place { line, column: 1 }, message.to_owned())]);
                }
                Err(Failure::Problems(problems)) => return Err(problems),
                Ok(tree) => return Ok(tree),
            }
        }
    }

    fn parse_once(text: &str, max_nodes: usize) -> Result<Self, Failure> {
        let mut options = granit_parser::options! {
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
                // What follows the first document is not read.
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

    /// The node of the document; none if the file holds nothing.
    pub(crate) fn root(&self) -> Option<Id> {
        self.root
    }

    /// A node by its number, an alias as itself.
    pub(crate) fn raw(&self, id: Id) -> &Node {
        &self.nodes[id as usize]
    }

    /// What a node stands for: an alias' target.
    pub(crate) fn target(&self, id: Id) -> Id {
        match self.raw(id).content {
            Content::Alias(target) => target,
            _ => id,
        }
    }
}

/// Why a text has no tree.
enum Failure {
    Problems(Vec<(Place, String)>),
    /// A quoted text goes on at this byte, left of where version 1.2 of YAML has it.
    Outdented(usize),
}

fn place(mark: &granit_parser::Marker) -> Place {
    Place {
        line: mark.line() as u64,
        column: mark.col() as u64 + 1,
    }
}

/// Puts the tree together.
struct Builder<'a> {
    text: &'a str,
    tree: Tree,
    /// The collections that are open.
    open: Vec<Open>,
    /// The node that an anchor names, by its number.
    anchors: Vec<Option<Id>>,
    problems: Vec<(Place, String)>,
    max_nodes: usize,
}

/// A collection with its children so far.
struct Open {
    id: Id,
    children: Vec<Id>,
    is_block_mapping: bool,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str, max_nodes: usize) -> Self {
        Self {
            text,
            tree: Tree::default(),
            open: Vec::new(),
            anchors: Vec::new(),
            problems: Vec::new(),
            max_nodes,
        }
    }

    fn take(&mut self, event: Event<'_>, span: &Span) -> Result<(), Vec<(Place, String)>> {
        let place = place(&span.start);
        let scalar = |text: &str, plain| Content::Scalar {
            text: text.into(),
            plain,
        };
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let source = Source {
                    text: self.text,
                    range: span.byte_range().unwrap_or_default(),
                };
                let at_key = self.open.last().is_some_and(|open| {
                    open.is_block_mapping && open.children.len().is_multiple_of(2)
                });
                let refused = strict::escape(&source, style)
                    .or_else(|| strict::key(&source).filter(|_| at_key));
                if let Some(message) = refused {
                    self.problems.push((place, message.to_owned()));
                }
                let text = strict::text(&source, &text, style);
                let content = scalar(text, style == ScalarStyle::Plain);
                self.add(place, content, tag.as_deref(), anchor)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                let content = Content::Sequence(Box::default());
                let id = self.add(place, content, tag.as_deref(), anchor)?;
                self.open(id, false);
            }
            Event::MappingStart(style, anchor, tag) => {
                let content = Content::Mapping(Box::default());
                let id = self.add(place, content, tag.as_deref(), anchor)?;
                self.open(id, style == StructureStyle::Block);
            }
            Event::DocumentStart(_, Some(version)) if (version.major, version.minor) != (1, 1) => {
                let message = "Prometheus reads YAML 1.1 alone: remove the %YAML directive";
                self.problems.push((place, message.to_owned()));
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    match &mut self.tree.nodes[open.id as usize].content {
                        Content::Sequence(children) | Content::Mapping(children) => {
                            *children = open.children.into();
                        }
                        Content::Scalar { .. } | Content::Alias(_) => {}
                    }
                }
            }
            Event::Alias(anchor) => {
                let target = self.anchors.get(anchor).copied().flatten();
                let content = target.map_or_else(|| scalar("", true), Content::Alias);
                self.add(place, content, None, 0)?;
            }
            Event::UnresolvedAlias(name) => {
                let message = format!(
                    "alias *{name} has no anchor before it: define &{name} above, or quote the value"
                );
                self.problems.push((place, message));
                self.add(place, scalar("", true), None, 0)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, id: Id, is_block_mapping: bool) {
        self.open.push(Open {
            id,
            children: Vec::new(),
            is_block_mapping,
        });
    }

    fn add(
        &mut self,
        place: Place,
        content: Content,
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
        match self.open.last_mut() {
            Some(open) => open.children.push(id),
            None => self.tree.root = Some(id),
        }
        Ok(id)
    }
}

/// What is said of a file that is larger than it may be, aliases expanded.
pub(crate) fn too_many_nodes(max: usize) -> String {
    format!("file holds more than {max} YAML nodes, aliases expanded: split it")
}

/// `!!name` for the tags of YAML itself, any other as it is.
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

    fn parse(text: &str) -> Result<Tree, Vec<(Place, String)>> {
        Tree::parse(text, 1000)
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
        assert_eq!(tree.target(children[2]), children[1]);
        assert_eq!(tree.target(children[3]), root);
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
