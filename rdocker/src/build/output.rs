//! `--output`: where the result of a build goes.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::Built;
use super::context::open_directory;
use super::ignore::Ignore;
use super::tree::{self, Filter, Owner, Place, Shape};
use crate::error::{Error, Result};
use crate::image::layer::pack::pack;
use crate::image::layer::{Form, unpack};
use crate::image::tar::Writer;
use crate::image::{self, Images, overlay};
use crate::store::digest::Digest;
use crate::store::lease::Lease;

/// One `--output`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// An image here, which is the default.
    Image {
        /// More names for it.
        names: Vec<String>,
        /// It is sent to its registries too.
        push: bool,
    },
    /// Its files in a directory.
    Local(PathBuf),
    /// Its files in an archive; `-` is stdout.
    Tar(PathBuf),
    /// An archive for `load`, which is an OCI layout too; `-` is stdout.
    Archive(PathBuf),
    /// The same as a directory.
    Layout(PathBuf),
    /// Nowhere: only the cache has it.
    Nothing,
}

impl Output {
    /// Reads `type=…,dest=…`, or a directory, or `-`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if !text.contains('=') {
            return Ok(match text {
                "-" => Self::Tar("-".into()),
                dir => Self::Local(dir.into()),
            });
        }
        let (mut kind, mut dest, mut names, mut push) = (None, None, Vec::new(), false);
        let mut is_archive = true;
        for field in text.split(',') {
            let (key, value) = field.split_once('=').unwrap_or((field, "true"));
            match key.trim() {
                "type" => kind = Some(value),
                "dest" => dest = Some(PathBuf::from(value)),
                "name" => names.push(value.to_owned()),
                "push" => push = value == "true",
                "tar" => is_archive = value == "true",
                // What images here are anyway, or what changes only how they are compressed.
                "oci-mediatypes" | "compression" | "compression-level" | "force-compression"
                | "rewrite-timestamp" | "store" | "unpack" | "annotation" => {}
                other => return Err(format!("unknown output field {other:?}")),
            }
        }
        let dest = |default: Option<&str>| {
            dest.clone()
                .or_else(|| default.map(PathBuf::from))
                .ok_or_else(|| "dest is required for this output".to_owned())
        };
        Ok(match kind.unwrap_or_default() {
            "local" => Self::Local(dest(None)?),
            "tar" => Self::Tar(dest(Some("-"))?),
            "docker" | "oci" if !is_archive => Self::Layout(dest(None)?),
            "docker" if dest(None).is_ok() => Self::Archive(dest(None)?),
            "oci" => Self::Archive(dest(Some("-"))?),
            "cacheonly" => Self::Nothing,
            "docker" | "image" => Self::Image { names, push },
            "registry" => Self::Image { names, push: true },
            other => return Err(format!("unknown output type {other:?}")),
        })
    }

    /// Whether the result becomes an image of the store.
    pub fn is_image(&self) -> bool {
        matches!(self, Self::Image { .. })
    }
}

/// Writes the files of a result to a directory: it is made, and what is there is kept.
///
/// # Errors
/// A file cannot be read or written.
pub fn to_directory(built: &Built, lease: &Lease<'_>, dir: &Path) -> Result<()> {
    with_root(built, lease, |root| {
        fs::create_dir_all(dir).map_err(|errno| Error::host("create directory", dir, errno))?;
        let to = open_directory(dir)?;
        let nothing = Ignore::default();
        let filter = Filter {
            context: None,
            exclude: &nothing,
        };
        let from = open_directory(root)?;
        let nodes = tree::list(from.as_fd(), b".", filter)?;
        let place = Place {
            root: to.as_fd(),
            path: b"",
            keep_root: true,
        };
        let shape = Shape {
            owner: Owner::Keep,
            mode: &|node| node.mode,
        };
        Ok(tree::copy(&nodes, from.as_fd(), b".", &place, &shape)?)
    })
}

/// Writes the files of a result as an archive.
///
/// # Errors
/// A file cannot be read, the archive not written.
pub fn to_archive(built: &Built, lease: &Lease<'_>, to: &mut dyn Write) -> Result<()> {
    with_root(built, lease, |root| {
        let root = open_directory(root)?;
        let mut writer = Writer::new(to);
        pack(root.as_fd(), Form::Plain, &mut writer).map_err(image::Error::from)?;
        writer.finish().map(drop).map_err(Error::Terminal)
    })
}

/// Unpacks an archive that `write` gives into a directory: it is made, and what is there is kept.
///
/// # Errors
/// The archive cannot be made, the directory not written.
pub fn to_layout(
    lease: &Lease<'_>,
    dir: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    let spool = lease.scratch();
    let at = |errno| Error::host("write", &spool, errno);
    let mut file = fs::File::create_new(&spool).map_err(at)?;
    write(&mut file)?;
    fs::create_dir_all(dir).map_err(|errno| Error::host("create directory", dir, errno))?;
    let archive = fs::File::open(&spool).map_err(at)?;
    unpack(archive, open_directory(dir)?.as_fd(), Form::Plain).map_err(image::Error::from)?;
    let _ = fs::remove_file(&spool);
    Ok(())
}

fn with_root<T>(built: &Built, lease: &Lease<'_>, f: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let dir = lease.scratch();
    let merged = overlay::mount_layers(&built.layers, &dir)?;
    let value = f(&merged);
    overlay::unmount_rootfs(&dir)?;
    value
}

/// Enters the result as an image with a history that the store can show; gives its id.
///
/// A Dockerfile of `FROM` alone gives the base itself, with more names.
///
/// # Errors
/// The store cannot be written; there is nothing at all.
pub fn to_image(
    built: &Built,
    images: Images<'_>,
    lease: &Lease<'_>,
    tags: &[image::Reference],
) -> Result<Digest> {
    if let (Some(base), true) = (&built.base, built.configs.is_empty()) {
        for tag in tags {
            images.tag(&base.to_string(), &tag.to_string())?;
        }
        return Ok(base.clone());
    }
    let id = images.enter_built(lease, built.base.as_ref(), &built.configs, tags)?;
    id.ok_or_else(|| Error::Invalid("No image was generated. Is your Dockerfile empty?".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_output_is_read() {
        let image = |push| Output::Image {
            names: vec!["a".into()],
            push,
        };
        let cases = [
            ("out", Output::Local("out".into())),
            ("-", Output::Tar("-".into())),
            ("type=local,dest=o", Output::Local("o".into())),
            ("type=tar,dest=o.tar", Output::Tar("o.tar".into())),
            ("type=tar", Output::Tar("-".into())),
            ("type=cacheonly", Output::Nothing),
            ("type=oci,dest=d,tar=false", Output::Layout("d".into())),
            ("type=oci,dest=d,tar=true", Output::Archive("d".into())),
            ("type=oci,dest=o", Output::Archive("o".into())),
            ("type=docker,dest=o", Output::Archive("o".into())),
            ("type=docker,name=a", image(false)),
            ("type=image,name=a,push=true", image(true)),
            ("type=registry,name=a", image(true)),
        ];
        for (text, want) in cases {
            assert_eq!(Output::parse(text), Ok(want), "{text}");
        }
        for wrong in ["type=local", "type=x", "dest=x", "type=tar,x=y"] {
            assert!(Output::parse(wrong).is_err(), "{wrong}");
        }
    }
}
