//! Snapshots of the files that a configuration depends on, and the folders to watch for changes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf, absolute};
use std::sync::Arc;
use std::thread;

use super::paths::paths;
use super::{Fingerprint, NamedFiles};

/// Most symbolic links followed on the way to a file, as in the kernel.
const MAX_LINKS: usize = 40;

/// The most threads that look at files at the same time.
const MOST_THREADS: usize = 4;

/// Number of files from which a further thread is started.
const MANY: usize = 1000;

/// A snapshot of files: their fingerprints at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    patterns: Vec<String>,
    matched: NamedFiles,
    named: NamedFiles,
}

impl Look {
    /// Takes a snapshot of the files that `patterns` match. The files that a configuration names in
    /// turn are not known yet.
    pub fn first(patterns: &[String]) -> Self {
        Self {
            patterns: patterns.to_vec(),
            matched: fingerprints(paths(patterns, &mut Vec::new())),
            named: NamedFiles::new(),
        }
    }

    /// Adds further files, such as those that a configuration names.
    pub fn with(self, named: NamedFiles) -> Self {
        Self { named, ..self }
    }

    /// Patterns of the first snapshot.
    pub fn patterns(&self) -> &[String] {
        &self.patterns
    }

    /// Takes a new snapshot of the same files.
    pub fn again(&self) -> Self {
        Self::first(&self.patterns).with(again(&self.named))
    }

    /// States of the further files.
    pub fn named(&self) -> &NamedFiles {
        &self.named
    }

    /// Folders in which the kernel reports an event when a file is changed, replaced, created or
    /// removed. A watch on the file itself would miss a file that replaces it.
    pub(super) fn folders(&self) -> BTreeSet<PathBuf> {
        let mut folders = Folders::default();
        for pattern in &self.patterns {
            let path = Path::new(pattern);
            if path.is_dir() {
                // Only the folder of this made-up file matters.
                folders.add(&path.join("any"));
            } else {
                let fixed = path.iter().take_while(|part| !is_glob(part));
                let fixed: PathBuf = fixed.collect();
                let is_whole = fixed.iter().count() == path.iter().count();
                let file = if is_whole { fixed } else { fixed.join("any") };
                folders.add(&file);
            }
        }
        for file in self.matched.keys().chain(self.named.keys()) {
            folders.add(file);
        }
        folders
            .found
            .into_iter()
            .filter_map(|folder| existing(&folder))
            .collect()
    }
}

fn fingerprints(files: impl IntoIterator<Item = PathBuf>) -> NamedFiles {
    let state = |file: PathBuf| {
        let state = Fingerprint::of_file(&file);
        (file.into(), state)
    };
    files.into_iter().map(state).collect()
}

/// New states of the same files. Very many files are looked at by several threads, since each waits for
/// the kernel.
fn again(files: &NamedFiles) -> NamedFiles {
    let files: Vec<(&Arc<Path>, &Fingerprint)> = files.iter().collect();
    let part = files.len().div_ceil(MOST_THREADS).max(MANY);
    let look = |files: &[(&Arc<Path>, &Fingerprint)]| -> Vec<(Arc<Path>, Fingerprint)> {
        let files = files.iter();
        files
            .map(|(file, state)| (Arc::clone(file), state.again(file)))
            .collect()
    };
    let (first, others) = files.split_at(files.len().min(part));
    thread::scope(|scope| {
        let others = others.chunks(part);
        let others: Vec<_> = others.map(|files| scope.spawn(|| look(files))).collect();
        let mut all: NamedFiles = HashMap::with_capacity(files.len());
        all.extend(look(first));
        for other in others {
            match other.join() {
                Ok(states) => all.extend(states),
                Err(panic) => resume_unwind(panic),
            }
        }
        all
    })
}

fn is_glob(part: &std::ffi::OsStr) -> bool {
    part.as_encoded_bytes()
        .iter()
        .any(|byte| b"*?[".contains(byte))
}

/// The folders on the way to files.
#[derive(Default)]
struct Folders {
    found: BTreeSet<PathBuf>,
    /// Folders of files that were added: the links on the way to them are followed once, however many
    /// files they hold.
    followed: HashSet<PathBuf>,
}

impl Folders {
    /// Adds the folder of a file, and the folders of all links on the way to it.
    fn add(&mut self, file: &Path) {
        let mut links = 0;
        let mut todo: Vec<PathBuf> = absolute(file).into_iter().collect();
        while let Some(path) = todo.pop() {
            let mut parts = usize::MAX;
            if let Some(folder) = path.parent() {
                if self.followed.contains(folder) {
                    // Only the file itself can be a link that was not followed.
                    parts = 1;
                } else {
                    self.found.insert(folder.to_owned());
                    self.followed.insert(folder.to_owned());
                }
            }
            for part in path.ancestors().take(parts) {
                let (Ok(target), Some(folder)) = (fs::read_link(part), part.parent()) else {
                    continue;
                };
                links += 1;
                if links > MAX_LINKS {
                    return;
                }
                self.found.insert(folder.to_owned());
                let behind = path.strip_prefix(part).into_iter().flat_map(Path::iter);
                todo.push(folder.join(target).iter().chain(behind).collect());
            }
        }
    }
}

/// The folder with links resolved, or its nearest ancestor that exists.
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
        let state = (named.as_path().into(), Fingerprint::of_file(&named));
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
    fn of_very_many_files_each_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let count = 3 * MANY + 7;
        let file = |number: usize| -> Arc<Path> { folder.path().join(number.to_string()).into() };
        let before: NamedFiles = fingerprints((0..count).map(|number| file(number).to_path_buf()));
        let appeared = [0, MANY, 2 * MANY + 1, count - 1];
        for number in appeared {
            fs::write(file(number), "x").unwrap();
        }
        let after = again(&before);
        assert_eq!(after.len(), count);
        let differs = |number: &usize| after[&file(*number)] != before[&file(*number)];
        let different: Vec<usize> = (0..count).filter(differs).collect();
        assert_eq!(different, appeared);
    }

    #[test]
    fn every_folder_on_the_way_to_a_file_is_watched() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        // The layout of a ConfigMap that Kubernetes mounts.
        let mounted = root.join("mounted");
        fs::create_dir_all(mounted.join("..1")).unwrap();
        fs::write(mounted.join("..1/a.toml"), "").unwrap();
        symlink("..1", mounted.join("..data")).unwrap();
        symlink("..data/a.toml", mounted.join("a.toml")).unwrap();
        // A link to the mounted file from another folder.
        fs::create_dir(root.join("etc")).unwrap();
        symlink("../mounted/a.toml", root.join("etc/a.toml")).unwrap();
        let expected = [root.join("etc"), mounted.clone(), mounted.join("..1")];
        assert_eq!(look(&[&root.join("etc/a.toml")]).folders(), expected.into());

        // A loop of links ends, and a missing folder is awaited in its nearest existing ancestor.
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
