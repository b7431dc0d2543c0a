//! A project to be built: a directory, and what to say about it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::host::{Done, TestHost};

/// A host, and a context directory on it.
pub struct Project {
    pub host: TestHost,
}

impl Project {
    /// A context with some of everything.
    pub fn new() -> Self {
        let project = Self {
            host: TestHost::new(),
        };
        fill(&project.context());
        project
    }

    pub fn context(&self) -> PathBuf {
        self.host.path().join("context")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.context().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// `build --progress plain FLAGS… -t NAME context` of this Dockerfile.
    pub fn build(&self, name: &str, dockerfile: &str, flags: &[&str]) -> Done {
        let file = self.host.path().join("Dockerfile.test");
        fs::write(&file, dockerfile).unwrap();
        let (file, context) = (
            file.display().to_string(),
            self.context().display().to_string(),
        );
        let mut args = vec!["build", "--progress", "plain", "-t", name, "-f", &file];
        if !flags.contains(&"--network") {
            // The default network would be a bridge of the machine that the tests run on.
            args.extend(["--network", "none"]);
        }
        args.extend(flags);
        args.push(&context);
        self.host.run(&args)
    }

    /// What a command prints in a container of an image.
    pub fn sh(&self, image: &str, command: &str) -> String {
        self.host
            .run(&[
                "run",
                "--rm",
                "--network",
                "none",
                "--entrypoint",
                "/bin/sh",
                image,
                "-c",
                command,
            ])
            .ok()
    }
}

/// Files that Dockerfiles copy.
pub fn fill(dir: &Path) {
    fs::create_dir_all(dir.join("sub/deep")).unwrap();
    fs::create_dir_all(dir.join("empty")).unwrap();
    for (name, text) in [
        ("a.txt", "a\n"),
        ("b.txt", "b\n"),
        ("with space.txt", "space\n"),
        ("sub/c.txt", "c\n"),
        ("sub/d.md", "d\n"),
        ("sub/deep/e.txt", "e\n"),
        ("ignored.txt", "ignored\n"),
        ("kept.md", "kept\n"),
        ("other.md", "other\n"),
        ("run.sh", "#!/bin/sh\necho ran\n"),
    ] {
        fs::write(dir.join(name), text).unwrap();
    }
    fs::set_permissions(dir.join("run.sh"), fs::Permissions::from_mode(0o750)).unwrap();
    std::os::unix::fs::chown(dir.join("b.txt"), Some(1234), Some(1234)).unwrap();
    fs::hard_link(dir.join("a.txt"), dir.join("sub/hard-a")).unwrap();
    fs::hard_link(dir.join("sub/hard-a"), dir.join("sub/hard-b")).unwrap();
    symlink("a.txt", dir.join("link")).unwrap();
    symlink("sub", dir.join("dirlink")).unwrap();
    symlink("../a.txt", dir.join("sub/up")).unwrap();
    fs::write(
        dir.join(".dockerignore"),
        "# comment\nignored.txt\n*.md\n!kept.md\n",
    )
    .unwrap();
    let made = std::process::Command::new("tar")
        .current_dir(dir)
        .args(["-czf", "archive.tgz", "--owner=7", "--group=8", "sub"])
        .status();
    assert!(made.unwrap().success());
}
