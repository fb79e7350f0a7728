//! A small file system of one's own, where mounting is allowed.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A file system in memory, unmounted when the test is done with it.
pub struct Volume {
    folder: TempDir,
}

impl Volume {
    /// Mounts one of this size; none where this user must not, which is told.
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

    /// Makes it read-only, or not.
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

    /// Takes so much of its space.
    pub fn fill(&self, bytes: usize) {
        std::fs::write(self.ballast(), vec![0; bytes]).unwrap();
    }

    /// Gives that back.
    pub fn free(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Even if something still has it open.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}
