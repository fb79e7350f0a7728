//! Files that something depends on: what they hold, and where to watch for changes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf, absolute};

use super::paths::paths;
use super::{Fingerprint, NamedFiles};

/// The most links that are followed on the way to a file, as the kernel does.
const MAX_LINKS: usize = 40;

/// What the files held at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    patterns: Vec<String>,
    matched: NamedFiles,
    named: NamedFiles,
}

impl Look {
    /// Looks at the files that patterns name: of a configuration, it is not known yet what it names
    /// in turn.
    pub fn first(patterns: &[String]) -> Self {
        Self {
            patterns: patterns.to_vec(),
            matched: fingerprints(paths(patterns, &mut Vec::new())),
            named: NamedFiles::new(),
        }
    }

    /// The same with further files, such as those that components of a configuration name.
    pub fn with(self, named: NamedFiles) -> Self {
        Self { named, ..self }
    }

    /// What names the files of the first look.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Looks at the same files again.
    pub fn again(&self) -> Self {
        Self::first(&self.patterns).with(fingerprints(self.named.keys().cloned()))
    }

    /// The folders in which something happens when a file is changed or replaced, comes or goes.
    /// Watching the file itself would miss what takes its place.
    pub(super) fn folders(&self) -> BTreeSet<PathBuf> {
        let mut folders = BTreeSet::new();
        for pattern in &self.patterns {
            let path = Path::new(pattern);
            if path.is_dir() {
                // Only the folder that stands before it matters to what is added here.
                way(&path.join("any"), &mut folders);
            } else {
                let fixed = path.iter().take_while(|part| !is_glob(part));
                let fixed: PathBuf = fixed.collect();
                let is_whole = fixed.iter().count() == path.iter().count();
                let file = if is_whole { fixed } else { fixed.join("any") };
                way(&file, &mut folders);
            }
        }
        for file in self.matched.keys().chain(self.named.keys()) {
            way(file, &mut folders);
        }
        folders
            .into_iter()
            .filter_map(|folder| existing(&folder))
            .collect()
    }
}

fn fingerprints(files: impl IntoIterator<Item = PathBuf>) -> NamedFiles {
    let state = |file: PathBuf| (file.clone(), Fingerprint::of_file(&file));
    files.into_iter().map(state).collect()
}

fn is_glob(part: &std::ffi::OsStr) -> bool {
    part.as_encoded_bytes()
        .iter()
        .any(|byte| b"*?[".contains(byte))
}

/// Adds the folder of a file, and those of all links on the way to it.
fn way(file: &Path, folders: &mut BTreeSet<PathBuf>) {
    let mut links = 0;
    let mut todo: Vec<PathBuf> = absolute(file).into_iter().collect();
    while let Some(path) = todo.pop() {
        folders.extend(path.parent().map(Path::to_owned));
        for part in path.ancestors() {
            let (Ok(target), Some(folder)) = (fs::read_link(part), part.parent()) else {
                continue;
            };
            links += 1;
            if links > MAX_LINKS {
                return;
            }
            folders.insert(folder.to_owned());
            let behind = path.strip_prefix(part).into_iter().flat_map(Path::iter);
            todo.push(folder.join(target).iter().chain(behind).collect());
        }
    }
}

/// The folder without links, or the nearest one above it that is there.
fn existing(folder: &Path) -> Option<PathBuf> {
    let mut above = folder.ancestors();
    above.find_map(|folder| {
        fs::canonicalize(folder)
            .ok()
            .filter(|folder| folder.is_dir())
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn look(patterns: &[&Path]) -> Look {
        let patterns: Vec<_> = patterns
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        Look::first(&patterns)
    }

    #[test]
    fn a_look_differs_when_a_file_comes_goes_or_changes() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let (config, named) = (root.join("conf.d"), root.join("ca.crt"));
        fs::create_dir(&config).unwrap();
        let state = (named.clone(), Fingerprint::of_file(&named));
        let mut last = look(&[&config]).with([state].into());
        assert_eq!(last.again(), last);
        let steps: [&dyn Fn() -> std::io::Result<()>; 5] = [
            &|| fs::write(config.join("a.toml"), "a"),
            &|| fs::write(&named, "certificate"),
            &|| fs::write(config.join("a.toml"), "b"),
            &|| fs::rename(config.join("a.toml"), config.join("b.toml")),
            &|| fs::remove_file(&named),
        ];
        for (at, step) in steps.iter().enumerate() {
            step().unwrap();
            let now = last.again();
            assert_ne!(now, last, "{at}");
            assert_eq!(now.again(), now, "{at}");
            last = now;
        }
        fs::write(config.join("notes.txt"), "").unwrap();
        assert_eq!(last.again(), last);
    }

    #[test]
    fn every_folder_on_the_way_to_a_file_is_watched() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        // As Kubernetes mounts a ConfigMap.
        let mounted = root.join("mounted");
        fs::create_dir_all(mounted.join("..1")).unwrap();
        fs::write(mounted.join("..1/a.toml"), "").unwrap();
        symlink("..1", mounted.join("..data")).unwrap();
        symlink("..data/a.toml", mounted.join("a.toml")).unwrap();
        // And a link to it from elsewhere.
        fs::create_dir(root.join("etc")).unwrap();
        symlink("../mounted/a.toml", root.join("etc/a.toml")).unwrap();
        let expected = [root.join("etc"), mounted.clone(), mounted.join("..1")];
        assert_eq!(look(&[&root.join("etc/a.toml")]).folders(), expected.into());

        // A loop ends, and what is not there is awaited above.
        symlink("loop", root.join("loop")).unwrap();
        assert_eq!(look(&[&root.join("loop")]).folders(), [root.clone()].into());
        let missing = look(&[&root.join("no/such/a.toml")]);
        assert_eq!(missing.folders(), [root.clone()].into());
    }

    #[test]
    fn globs_and_folders_are_watched_for_files_to_come() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir(root.join("a")).unwrap();
        fs::write(root.join("a/1.toml"), "").unwrap();
        assert_eq!(look(&[&root.join("a")]).folders(), [root.join("a")].into());
        let glob = look(&[&root.join("*/?.toml")]).folders();
        assert_eq!(glob, [root.clone(), root.join("a")].into());
    }
}
