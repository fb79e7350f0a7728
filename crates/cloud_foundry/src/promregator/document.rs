//! A file as Spring reads it: keys in any spelling, nested or joined by dots, and lists as such or with
//! the number of each entry in its key.

use std::collections::BTreeMap;

use serde_json::Value;

/// The most levels of nesting.
const MAX_DEPTH: usize = 50;

const SEVERAL: &str = "holds several documents, separated by ---, as for Spring's profiles: convert the parts that apply to one profile, as one document";

/// A file, or a part of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Document {
    /// Values by canonical key, each with the spelling in the file.
    keys: BTreeMap<String, (String, Node)>,
}

#[derive(Clone, Debug)]
enum Node {
    Table(Document),
    List(Vec<Node>),
    Text(String),
    Null,
}

impl Document {
    /// Reads YAML.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        // `y` and `n` are texts there, and what else may be a truth value is one by its key.
        let options = serde_saphyr::options! { strict_booleans: true };
        let value: Value = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            match error.without_snippet() {
                serde_saphyr::Error::MultipleDocuments { .. } => SEVERAL.to_owned(),
                error => error.to_string(),
            }
        })?;
        match node(value, 0)? {
            Node::Table(document) => Ok(document),
            Node::Null => Ok(Self::default()),
            _ => Err("is not a table of keys".to_owned()),
        }
    }

    fn insert(&mut self, name: &str, node: Node) {
        if let Some((list, number, rest)) = numbered(name) {
            let rest = rest.trim_start_matches('.');
            let below = [list, number, rest].into_iter().filter(|it| !it.is_empty());
            return self.insert(&below.collect::<Vec<_>>().join("."), node);
        }
        if let Some((first, rest)) = name.split_once('.') {
            let entry = self.keys.entry(canonical(first));
            let (_, below) =
                entry.or_insert_with(|| (first.to_owned(), Node::Table(Self::default())));
            if let Node::Table(below) = below {
                below.insert(rest, node);
            }
            return;
        }
        match (self.keys.get_mut(&canonical(name)), node) {
            // A table may be spread over several spellings.
            (Some((_, Node::Table(known))), Node::Table(more)) => {
                for (name, node) in more.keys.into_values() {
                    known.insert(&name, node);
                }
            }
            (_, node) => {
                self.keys.insert(canonical(name), (name.to_owned(), node));
            }
        }
    }

    /// Removes and returns the value at a path of keys joined by dots.
    pub(super) fn text(&mut self, path: &str) -> Option<String> {
        match self.take(path)? {
            Node::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Removes and returns the list at a path; a single text is a list whose entries commas separate.
    pub(super) fn texts(&mut self, path: &str) -> Vec<String> {
        let nodes = match self.take(path) {
            Some(Node::Text(text)) => {
                let parts = text.split(',').map(|it| Node::Text(it.trim().to_owned()));
                parts.collect()
            }
            Some(node) => node.listed(),
            None => Vec::new(),
        };
        let texts = nodes.into_iter().filter_map(|node| match node {
            Node::Text(text) => Some(text),
            _ => None,
        });
        texts.collect()
    }

    /// Removes and returns the tables of the list at a path.
    pub(super) fn tables(&mut self, path: &str) -> Vec<Self> {
        let nodes = self.take(path).map_or_else(Vec::new, Node::listed);
        let tables = nodes.into_iter().filter_map(|node| match node {
            Node::Table(table) => Some(table),
            // An entry without keys.
            Node::Null => Some(Self::default()),
            _ => None,
        });
        tables.collect()
    }

    /// Removes and returns the table at a path.
    pub(super) fn table(&mut self, path: &str) -> Self {
        match self.take(path) {
            Some(Node::Table(table)) => table,
            _ => Self::default(),
        }
    }

    /// The value at a path, without removing it.
    pub(super) fn look(&self, path: &str) -> Option<&str> {
        let (first, rest) = path.split_once('.').unwrap_or((path, ""));
        match (&self.keys.get(&canonical(first))?.1, rest) {
            (Node::Text(text), "") => Some(text),
            (Node::Table(below), rest) if !rest.is_empty() => below.look(rest),
            _ => None,
        }
    }

    fn take(&mut self, path: &str) -> Option<Node> {
        match path.split_once('.') {
            None => Some(self.keys.remove(&canonical(path))?.1),
            Some((first, rest)) => match &mut self.keys.get_mut(&canonical(first))?.1 {
                Node::Table(below) => below.take(rest),
                _ => None,
            },
        }
    }

    /// Paths of all values that were not removed.
    pub(super) fn rest(&self) -> Vec<String> {
        let mut paths = Vec::new();
        for (name, node) in self.keys.values() {
            match node {
                Node::Table(below) => {
                    let rest = below.rest().into_iter();
                    paths.extend(rest.map(|path| format!("{name}.{path}")));
                }
                Node::Null => {}
                _ => paths.push(name.clone()),
            }
        }
        paths
    }
}

impl Node {
    /// The entries of a list, which may be a table with their numbers as keys. Any other value counts as
    /// a list of one.
    fn listed(self) -> Vec<Self> {
        match self {
            Self::List(nodes) => nodes,
            Self::Table(table) => {
                let number = |key: &String| key.parse::<u32>().ok();
                if table.keys.is_empty() || table.keys.keys().any(|key| number(key).is_none()) {
                    return vec![Self::Table(table)];
                }
                let mut nodes: Vec<_> = table.keys.into_iter().collect();
                nodes.sort_by_key(|(key, _)| number(key));
                nodes.into_iter().map(|(_, (_, node))| node).collect()
            }
            node => vec![node],
        }
    }
}

/// Splits a key in which the number of a list's entry stands in brackets: the list, the number, and what
/// is behind them.
fn numbered(name: &str) -> Option<(&str, &str, &str)> {
    let (list, behind) = name.split_once('[')?;
    let (number, rest) = behind.split_once(']')?;
    let is_number = !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit());
    is_number.then_some((list, number, rest))
}

fn node(value: Value, depth: usize) -> Result<Node, String> {
    if depth > MAX_DEPTH {
        return Err(format!("has more than {MAX_DEPTH} levels"));
    }
    Ok(match value {
        Value::Null => Node::Null,
        Value::Bool(value) => Node::Text(value.to_string()),
        Value::Number(value) => Node::Text(value.to_string()),
        Value::String(text) => Node::Text(text),
        Value::Array(values) => {
            let nodes = values.into_iter().map(|value| node(value, depth + 1));
            Node::List(nodes.collect::<Result<_, _>>()?)
        }
        Value::Object(map) => {
            let mut document = Document::default();
            for (name, value) in map {
                document.insert(&name, node(value, depth + 1)?);
            }
            Node::Table(document)
        }
    })
}

/// The canonical form of all spellings of a key.
fn canonical(name: &str) -> String {
    let kept = name.chars().filter(|c| !matches!(c, '-' | '_'));
    kept.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_every_spelling() {
        for text in [
            "cf:\n  api_host: x\n  proxy: {port: 80}\n",
            "cf.api_host: x\ncf.proxy.port: 80\n",
            "cf:\n  apiHost: x\ncf.proxy:\n  port: '80'\n",
            "CF:\n  api-host: x\n  proxy.port: 80\n",
        ] {
            let mut document = Document::read(text).unwrap();
            assert_eq!(document.look("cf.api_host"), Some("x"), "{text}");
            assert_eq!(document.text("cf.apihost").unwrap(), "x");
            assert_eq!(document.rest().len(), 1);
            assert_eq!(document.text("cf.proxy.port").unwrap(), "80");
            assert_eq!(document.rest(), Vec::<String>::new());
        }
    }

    #[test]
    fn lists_are_found_in_every_spelling() {
        for text in [
            "a:\n  b: [{c: x}, {c: y, d: [p, q]}]\n",
            "a.b[0].c: x\na.b[1].c: y\na.b[1].d[0]: p\na.b[1].d[1]: q\n",
            "a:\n  b[1]: {c: y, d: 'p, q'}\n  b[0].c: x\n",
            "a:\n  b:\n    '1': {c: y, 'd[0]': p, 'd[1]': q}\n    '0': {c: x}\n",
            "a.b:\n  '[0]': {c: x}\n  '[1]': {c: y, d: {0: p, 1: q}}\n",
        ] {
            let mut document = Document::read(text).unwrap();
            let mut tables = document.tables("a.b");
            assert_eq!(tables.len(), 2, "{text}");
            assert_eq!(tables[0].text("c").unwrap(), "x", "{text}");
            assert_eq!(tables[1].text("c").unwrap(), "y", "{text}");
            assert_eq!(tables[1].texts("d"), ["p", "q"], "{text}");
            assert!(document.rest().is_empty(), "{text}");
        }
        // More than ten entries stay in their order.
        let many: String = (0..12).map(|at| format!("a[{at}]: {at}\n")).collect();
        let texts = Document::read(&many).unwrap().texts("a");
        assert_eq!(texts.join(" "), "0 1 2 3 4 5 6 7 8 9 10 11");
    }

    #[test]
    fn what_is_no_table_is_refused() {
        assert!(Document::read("- a").is_err());
        assert!(Document::read("a: [").is_err());
        let several = Document::read("a: 1\n---\na: 2\n").unwrap_err();
        assert!(several.contains("Spring's profiles"), "{several}");
        assert!(Document::read("---\na: 1\n").is_ok());
        assert!(Document::read("").unwrap().rest().is_empty());
    }
}
