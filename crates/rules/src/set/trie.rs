//! A persistent map by tenant: a trie of 16 children over a hash of the name.
//!
//! Its shape depends on the names alone, so two maps that were made from each other share everything
//! except the paths to the differences. The hash is SHA-256, cut to 64 bits: no tenant can choose a
//! name that makes the path to another tenant longer than 16 nodes. This is own code instead of `imbl`
//! because of that crate's licence (MPL-2.0).

use std::sync::Arc;

use super::Tenant;
use crate::Version;

/// Bits of the hash for each level, and the resulting number of children.
const BITS: u32 = 4;
const CHILDREN: usize = 1 << BITS;

/// The map. A clone is one pointer.
#[derive(Clone, Debug)]
pub(super) struct Trie<V> {
    root: Link<V>,
    len: usize,
}

type Link<V> = Option<Arc<Node<V>>>;

#[derive(Debug)]
enum Node<V> {
    /// Tenants with the same hash, sorted: one, unless 64 bits collide.
    Leaf {
        hash: u64,
        entries: Vec<(Tenant, V)>,
    },
    /// At least two tenants, split by the next bits of their hashes.
    Branch(Box<[Link<V>; CHILDREN]>),
}

impl<V> Default for Trie<V> {
    fn default() -> Self {
        Self { root: None, len: 0 }
    }
}

fn hash(tenant: &str) -> u64 {
    let version = Version::of(tenant.as_bytes());
    let (first, _) = version
        .as_bytes()
        .split_first_chunk()
        .unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*first)
}

/// Index of the child for a hash at a level.
fn child(hash: u64, level: u32) -> usize {
    (hash >> (level * BITS)) as usize % CHILDREN
}

impl<V: Clone + PartialEq> Trie<V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, tenant: &str) -> Option<&V> {
        let hash = hash(tenant);
        let mut link = &self.root;
        for level in 0.. {
            match link.as_deref()? {
                Node::Leaf { entries, .. } => {
                    let entry = entries.iter().find(|(name, _)| &**name == tenant);
                    return entry.map(|(_, value)| value);
                }
                Node::Branch(children) => link = &children[child(hash, level)],
            }
        }
        None
    }

    pub(super) fn insert(&self, tenant: Tenant, value: V) -> Self {
        let added = self.get(&tenant).is_none();
        Self {
            root: Some(inserted(&self.root, 0, hash(&tenant), tenant, value)),
            len: self.len + usize::from(added),
        }
    }

    pub(super) fn remove(&self, tenant: &str) -> Self {
        if self.get(tenant).is_none() {
            return self.clone();
        }
        Self {
            root: removed(&self.root, 0, hash(tenant), tenant),
            len: self.len - 1,
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Tenant, &V)> {
        let mut open: Vec<&Node<V>> = self.root.as_deref().into_iter().collect();
        let mut leaf: std::slice::Iter<'_, (Tenant, V)> = [].iter();
        std::iter::from_fn(move || {
            loop {
                if let Some((tenant, value)) = leaf.next() {
                    return Some((tenant, value));
                }
                match open.pop()? {
                    Node::Leaf { entries, .. } => leaf = entries.iter(),
                    Node::Branch(children) => {
                        open.extend(children.iter().rev().filter_map(Option::as_deref));
                    }
                }
            }
        })
    }

    /// Calls `found` for each tenant whose value differs, with the old and the new one.
    pub(super) fn diff(&self, new: &Self, visits: &mut usize, found: &mut Found<'_, V>) {
        diff(&self.root, &new.root, 0, visits, found);
    }
}

/// Callback for a difference: the tenant, and its old and new value.
type Found<'a, V> = dyn FnMut(&Tenant, Option<&V>, Option<&V>) + 'a;

fn empty<V>() -> Box<[Link<V>; CHILDREN]> {
    Box::new([const { None }; CHILDREN])
}

fn inserted<V: Clone>(
    link: &Link<V>,
    level: u32,
    hash: u64,
    tenant: Tenant,
    value: V,
) -> Arc<Node<V>> {
    let leaf = |entries| Arc::new(Node::Leaf { hash, entries });
    let Some(node) = link else {
        return leaf(vec![(tenant, value)]);
    };
    match &**node {
        Node::Leaf {
            hash: other,
            entries,
        } if *other == hash => {
            let mut entries = entries.clone();
            match entries.binary_search_by(|(name, _)| name.cmp(&tenant)) {
                Ok(at) => entries[at].1 = value,
                Err(at) => entries.insert(at, (tenant, value)),
            }
            leaf(entries)
        }
        // Different hashes part within 16 levels, so this recursion ends.
        Node::Leaf { hash: other, .. } => {
            let mut children = empty();
            children[child(*other, level)] = Some(node.clone());
            let place = child(hash, level);
            let below = inserted(&children[place], level + 1, hash, tenant, value);
            children[place] = Some(below);
            Arc::new(Node::Branch(children))
        }
        Node::Branch(children) => {
            let mut children = children.clone();
            let place = child(hash, level);
            let below = inserted(&children[place], level + 1, hash, tenant, value);
            children[place] = Some(below);
            Arc::new(Node::Branch(children))
        }
    }
}

fn removed<V: Clone>(link: &Link<V>, level: u32, hash: u64, tenant: &str) -> Link<V> {
    match link.as_deref()? {
        Node::Leaf { entries, .. } => {
            let kept = entries.iter().filter(|(name, _)| &**name != tenant);
            let entries: Vec<_> = kept.cloned().collect();
            (!entries.is_empty()).then(|| Arc::new(Node::Leaf { hash, entries }))
        }
        Node::Branch(children) => {
            let mut children = children.clone();
            let place = child(hash, level);
            children[place] = removed(&children[place], level + 1, hash, tenant);
            // A branch with a single leaf becomes that leaf, so that the shape depends on the names
            // alone.
            let mut left = children.iter().flatten();
            match (left.next(), left.next()) {
                (Some(only), None) if matches!(**only, Node::Leaf { .. }) => Some(only.clone()),
                (None, _) => None,
                _ => Some(Arc::new(Node::Branch(children))),
            }
        }
    }
}

fn diff<V: PartialEq>(
    old: &Link<V>,
    new: &Link<V>,
    level: u32,
    visits: &mut usize,
    found: &mut Found<'_, V>,
) {
    let is_shared = match (old, new) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        (None, None) => true,
        _ => false,
    };
    if is_shared {
        return;
    }
    *visits += 1;
    let leaf = |link: &Link<V>| match link.as_deref() {
        None => Some(None),
        Some(Node::Leaf { hash, .. }) => Some(Some(*hash)),
        Some(Node::Branch(_)) => None,
    };
    match (leaf(old), leaf(new)) {
        (Some(before), Some(after)) if before == after || before.is_none() || after.is_none() => {
            diff_leaves(entries(old), entries(new), visits, found);
        }
        (Some(_), Some(_)) => {
            diff_leaves(entries(old), &[], visits, found);
            diff_leaves(&[], entries(new), visits, found);
        }
        _ => {
            for place in 0..CHILDREN {
                let (old, new) = (below(old, place, level), below(new, place, level));
                diff(old, new, level + 1, visits, found);
            }
        }
    }
}

fn entries<V>(link: &Link<V>) -> &[(Tenant, V)] {
    match link.as_deref() {
        Some(Node::Leaf { entries, .. }) => entries,
        _ => &[],
    }
}

/// A child at a place; a leaf is treated as a branch that holds only that leaf.
fn below<V>(link: &Link<V>, place: usize, level: u32) -> &Link<V> {
    match link.as_deref() {
        Some(Node::Branch(children)) => &children[place],
        Some(Node::Leaf { hash, .. }) if child(*hash, level) == place => link,
        _ => &None,
    }
}

/// Differences of two sorted lists.
fn diff_leaves<V: PartialEq>(
    mut old: &[(Tenant, V)],
    mut new: &[(Tenant, V)],
    visits: &mut usize,
    found: &mut Found<'_, V>,
) {
    use std::cmp::Ordering::{Equal, Greater, Less};
    loop {
        let order = match (old.first(), new.first()) {
            (None, None) => return,
            (Some(_), None) => Less,
            (None, Some(_)) => Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        *visits += 1;
        if order == Equal {
            if old[0].1 != new[0].1 {
                found(&old[0].0, Some(&old[0].1), Some(&new[0].1));
            }
            (old, new) = (&old[1..], &new[1..]);
        } else if order == Less {
            found(&old[0].0, Some(&old[0].1), None);
            old = &old[1..];
        } else {
            found(&new[0].0, None, Some(&new[0].1));
            new = &new[1..];
        }
    }
}
