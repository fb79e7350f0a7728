//! Reads mappings, lists and scalars of the YAML tree as values of a rule file: follows aliases,
//! applies merge keys, and refuses duplicate keys.

use std::collections::{HashMap, HashSet};

use super::Limits;
use super::problem::{Key, Problems};
use crate::yaml::{Content, Id, Node, Place, Resolved, Tree, resolve, too_many_nodes};

/// Maximum depth of nested merge keys; real files have at most two.
const MAX_MERGES: usize = 16;
/// Number of keys up to which a mapping is searched for duplicates without a hash map.
const FEW: usize = 8;

/// A key of a mapping and its value, with aliases followed.
#[derive(Clone, Copy)]
pub(super) struct Field<'t> {
    pub(super) name: &'t str,
    /// Position of the key.
    pub(super) place: Place,
    pub(super) value: Id,
}

/// Reads nodes as expected types, and records a problem for each mismatch.
pub(super) struct Reader<'t> {
    tree: &'t Tree<'t>,
    pub(super) problems: Problems,
    visits: usize,
    max_visits: usize,
    bytes: usize,
    max_bytes: usize,
}

impl<'t> Reader<'t> {
    pub(super) fn new(tree: &'t Tree<'t>, limits: &Limits) -> Self {
        Self {
            tree,
            problems: Problems::new(limits.problems),
            visits: 0,
            max_visits: limits.nodes,
            bytes: 0,
            max_bytes: limits.bytes,
        }
    }

    pub(super) fn place(&self, id: Id) -> Place {
        self.tree.raw(id).place
    }

    /// The node of an ID, with aliases followed. Aliases can repeat nodes, so visits are bounded;
    /// beyond the bound it returns `None`.
    fn node(&mut self, id: Id) -> Option<&'t Node<'t>> {
        self.visits += 1;
        let node = self.tree.raw(self.tree.target(id));
        if self.visits == self.max_visits {
            let message = too_many_nodes(self.max_visits);
            self.problems.push(node.place, &Key::File, message);
        }
        (self.visits < self.max_visits).then_some(node)
    }

    /// Whether a node is null.
    pub(super) fn is_null(&self, id: Id) -> bool {
        let node = self.tree.raw(self.tree.target(id));
        matches!(node.content, Content::Scalar { .. }) && resolve(node) == Ok(Resolved::Null)
    }

    /// The items of a list.
    pub(super) fn list(&mut self, id: Id, key: &Key<'_>) -> &'t [Id] {
        let Some(node) = self.node(id) else {
            return &[];
        };
        match &node.content {
            Content::Sequence(items) => self.tree.children(*items),
            _ if self.is_null(id) => &[],
            _ => {
                self.unfit(
                    node,
                    key,
                    "a list: write one item per line, each after `- `",
                );
                &[]
            }
        }
    }

    /// The text of a scalar; `None` if it is null or no scalar.
    pub(super) fn text(&mut self, id: Id, key: &Key<'_>) -> Option<&'t str> {
        let node = self.node(id)?;
        let Content::Scalar { text, .. } = &node.content else {
            self.unfit(node, key, "text: quote it if it begins with [ or {");
            return None;
        };
        match resolve(node) {
            Ok(Resolved::Null) => None,
            Ok(_) => self.count(text, node.place),
            Err(message) => {
                self.problems.push(node.place, key, message);
                None
            }
        }
    }

    /// Counts a text, which the caller may copy. Aliases can repeat texts, so their total size is
    /// bounded; beyond the bound it returns `None`.
    fn count(&mut self, text: &'t str, place: Place) -> Option<&'t str> {
        let before = self.bytes;
        self.bytes = before.saturating_add(text.len());
        if self.bytes <= self.max_bytes {
            return Some(text);
        }
        if before <= self.max_bytes {
            let message = format!(
                "file holds more than {} bytes, aliases expanded: split it",
                self.max_bytes
            );
            self.problems.push(place, &Key::File, message);
        }
        None
    }

    /// Reads an integer.
    pub(super) fn integer(&mut self, id: Id, key: &Key<'_>) -> Option<i64> {
        let node = self.node(id)?;
        let resolved = match (&node.content, resolve(node)) {
            (Content::Scalar { .. }, Ok(resolved)) => resolved,
            (Content::Scalar { .. }, Err(message)) => {
                self.problems.push(node.place, key, message);
                return None;
            }
            _ => Resolved::Boolean,
        };
        match resolved {
            Resolved::Null => None,
            Resolved::Integer(number) => Some(number),
            // Prometheus truncates fractions.
            Resolved::Float(number) if number < i64::MAX as f64 => Some(number as i64),
            _ => {
                self.unfit(node, key, "a whole number of 64 bits, without quotes");
                None
            }
        }
    }

    /// The fields of a mapping, followed by those merged into it; `None` if the node is no mapping. A
    /// null key is ignored, as in Prometheus.
    pub(super) fn fields(&mut self, id: Id, key: &Key<'_>, what: &str) -> Option<Vec<Field<'t>>> {
        let node = self.node(id)?;
        let Content::Mapping(children) = &node.content else {
            if !self.is_null(id) {
                self.unfit(node, key, what);
            }
            return None;
        };
        let mut merge = Merge {
            set: HashSet::new(),
            open: Vec::new(),
            fields: Vec::with_capacity(self.tree.children(*children).len() / 2),
        };
        self.flatten(id, key, &mut merge);
        Some(merge.fields)
    }

    fn flatten(&mut self, id: Id, key: &Key<'_>, merge: &mut Merge<'t>) {
        let id = self.tree.target(id);
        let Some(node) = self.node(id) else { return };
        let Content::Mapping(children) = &node.content else {
            return;
        };
        if merge.open.contains(&id) || merge.open.len() == MAX_MERGES {
            let message = format!(
                "merge keys contain themselves, or more than {MAX_MERGES} of each other: write the keys out"
            );
            self.problems.push(node.place, key, message);
            return;
        }
        let pairs = self.tree.children(*children).as_chunks::<2>().0;
        self.refuse_repeated(pairs, key);
        // Without a merge key, nothing asks which keys are set, nor which mappings are being merged.
        let merges = pairs.iter().any(|[name, _]| is_merge(self.tree.raw(*name)));
        let merges = merges || !merge.open.is_empty();
        if merges {
            merge.open.push(id);
        }
        let mut merged = None;
        for &[name, value] in pairs {
            if is_merge(self.tree.raw(name)) {
                merged = Some(value);
                continue;
            }
            self.add(name, value, key, merge, merges);
        }
        if let Some(value) = merged {
            self.merge(value, key, merge);
        }
        merge.open.pop();
    }

    fn add(&mut self, name: Id, value: Id, key: &Key<'_>, merge: &mut Merge<'t>, merges: bool) {
        let node = self.tree.raw(self.tree.target(name));
        if !matches!(node.content, Content::Scalar { .. }) {
            self.unfit(node, key, "text as a key");
            return;
        }
        let Some(text) = self.text(name, key) else {
            return;
        };
        let within = merge.open.len() > 1;
        if within && merge.set.contains(text) {
            return;
        }
        // In Prometheus, a numeric key does not override a merged key.
        if merges && (within || matches!(resolve(node), Ok(Resolved::Text(_)))) {
            merge.set.insert(text);
        }
        merge.fields.push(Field {
            name: text,
            place: self.tree.raw(name).place,
            value: self.tree.target(value),
        });
    }

    fn merge(&mut self, value: Id, key: &Key<'_>, merge: &mut Merge<'t>) {
        let tree = self.tree;
        let is_mapping = |id: Id| matches!(tree.raw(tree.target(id)).content, Content::Mapping(_));
        let node = tree.raw(value);
        let maps = match &node.content {
            Content::Sequence(items) => tree.children(*items).to_vec(),
            _ => vec![value],
        };
        for map in maps {
            if is_mapping(map) {
                self.flatten(map, key, merge);
            } else {
                let node = tree.raw(map);
                self.unfit(node, key, "a mapping, or a list of them, after a merge key");
            }
        }
    }

    /// Records a problem for each duplicate key of a mapping, whatever its quotes.
    fn refuse_repeated(&mut self, pairs: &'t [[Id; 2]], key: &Key<'_>) {
        let mut first: HashMap<Identity<'_>, Place> = HashMap::new();
        for (index, [name, _]) in pairs.iter().enumerate() {
            let node = self.tree.raw(*name);
            let identity = Identity::of(node);
            let before = if pairs.len() <= FEW {
                let before = pairs[..index].iter().map(|[name, _]| self.tree.raw(*name));
                let mut same = before.filter(|node| Identity::of(node) == identity);
                same.next().map(|node| node.place)
            } else {
                let before = first.get(&identity).copied();
                first.entry(identity).or_insert(node.place);
                before
            };
            let Some(before) = before else { continue };
            let name = match identity {
                Identity::Scalar(text) => text,
                _ => "of this kind",
            };
            let message = format!(
                "key {name:?} already stands at line {}: leave one of them",
                before.line
            );
            self.problems.push(node.place, key, message);
        }
    }

    fn unfit(&mut self, node: &Node<'_>, key: &Key<'_>, wanted: &str) {
        let found = match &node.content {
            Content::Scalar { text, .. } if text.chars().count() <= 20 => format!("{text:?}"),
            Content::Scalar { .. } => "a scalar".to_owned(),
            Content::Sequence(_) => "a list".to_owned(),
            Content::Mapping(_) => "a mapping".to_owned(),
            Content::Alias(_) => "an alias of something else".to_owned(),
        };
        let message = format!("found {found} in the place of {wanted}");
        self.problems.push(node.place, key, message);
    }
}

/// State of merging mappings into one.
struct Merge<'t> {
    /// Keys that are set, which a later merge must not override.
    set: HashSet<&'t str>,
    /// The mappings that are being merged, outermost first.
    open: Vec<Id>,
    fields: Vec<Field<'t>>,
}

/// What makes two keys of a mapping the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Identity<'t> {
    Scalar(&'t str),
    Alias(Id),
    Sequence,
    Mapping,
}

impl<'t> Identity<'t> {
    fn of(node: &'t Node<'_>) -> Self {
        match &node.content {
            Content::Scalar { text, .. } => Self::Scalar(text),
            Content::Alias(target) => Self::Alias(*target),
            Content::Sequence(_) => Self::Sequence,
            Content::Mapping(_) => Self::Mapping,
        }
    }
}

fn is_merge(node: &Node<'_>) -> bool {
    let Content::Scalar { text, plain } = &node.content else {
        return false;
    };
    text == "<<" && node.tag.as_deref().map_or(*plain, |tag| tag == "!!merge")
}
