//! A small file system for a test, where mounting is permitted.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A file system in memory, unmounted on drop.
pub struct Volume {
    folder: TempDir,
}

impl Volume {
    /// Mounts one of this size. Where mounting is not permitted, prints so and returns `None`.
    pub fn mount(bytes: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]);
        let done = mount.arg(folder.path()).output();
        match done {
            Ok(output) if output.status.success() => Some(Self { folder }),
            refused => {
                eprintln!("cannot mount a tmpfs, so this part is left out: {refused:?}");
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Remounts it read-only, or writable.
    #[track_caller]
    pub fn read_only(&self, only: bool) {
        let how = if only { "remount,ro" } else { "remount,rw" };
        let mut mount = Command::new("mount");
        let done = mount.args(["-o", how]).arg(self.path()).status();
        assert!(done.unwrap().success());
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Fills `bytes` of its space.
    pub fn fill(&self, bytes: usize) {
        std::fs::write(self.ballast(), vec![0; bytes]).unwrap();
    }

    /// Fills all space that is free.
    pub fn fill_up(&self) {
        let mut ballast = std::fs::File::create(self.ballast()).unwrap();
        while ballast.write_all(&[0; 4096]).is_ok() {}
    }

    /// Frees the filled space.
    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: a process may still have it open.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
