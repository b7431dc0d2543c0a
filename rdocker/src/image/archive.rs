//! An image archive on its way in: every member in a scratch file, named, hashed once.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use crate::store::digest::{Algorithm, Digest, Hashed};
use crate::store::lease::Lease;

use super::layer::compress::decompress;
use super::layer::pack::join;
use super::tar::{self, Kind, Reader};
use super::{Error, Result};

/// The most members of an image archive.
const MEMBERS_MAX: usize = 100_000;
/// The most links from one layer file to another.
const LINKS_MAX: usize = 16;

/// One regular member.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its bytes.
    pub file: PathBuf,
    /// Their digest.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
}

/// All members of an image archive, by their plain names.
pub struct Archive {
    members: BTreeMap<String, Member>,
    links: BTreeMap<String, String>,
}

impl Archive {
    /// Reads an archive of any compression into the lease's scratch space.
    ///
    /// Nothing is made under a name from the archive: a member's name is only looked up.
    pub fn read(lease: &Lease<'_>, stream: impl Read + Send) -> Result<Archive> {
        let plain = decompress(stream).map_err(tar::Error::Stream)?;
        let mut reader = Reader::new(io::BufReader::with_capacity(256 << 10, plain));
        let mut archive = Archive {
            members: BTreeMap::new(),
            links: BTreeMap::new(),
        };
        while let Some(entry) = reader.next_entry()? {
            let Some(name) = plain_name(&entry.path, b"") else {
                continue;
            };
            if archive.members.len() + archive.links.len() >= MEMBERS_MAX {
                let why = format!("it has more than {MEMBERS_MAX} members");
                return Err(tar::Error::Invalid(why).into());
            }
            match entry.kind {
                Kind::File => {
                    let member = spool(lease, &mut reader)?;
                    archive.members.insert(name, member);
                }
                Kind::Symlink | Kind::Hardlink => {
                    // Old archives link equal layers to each other.
                    let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
                    let base = if entry.kind == Kind::Symlink { dir } else { "" };
                    if let Some(target) = plain_name(&entry.link, base.as_bytes()) {
                        archive.links.insert(name, target);
                    }
                }
                _ => {}
            }
        }
        Ok(archive)
    }

    /// The member of this name, through links.
    pub fn find(&self, name: &str) -> Option<&Member> {
        let mut name = plain_name(name.as_bytes(), b"")?;
        for _ in 0..LINKS_MAX {
            if let Some(member) = self.members.get(&name) {
                return Some(member);
            }
            name = self.links.get(&name)?.clone();
        }
        None
    }

    /// The bytes of a small member.
    ///
    /// # Errors
    /// [`Error::Document`] if it is missing or larger than `max`.
    pub fn bytes(&self, name: &str, max: u64) -> Result<Vec<u8>> {
        let member = self
            .find(name)
            .ok_or_else(|| Error::document("archive", format!("{name} is missing")))?;
        if member.size > max {
            return Err(Error::document(
                name,
                format!("it is larger than {max} bytes"),
            ));
        }
        std::fs::read(&member.file).map_err(Error::io("read", &member.file.display()))
    }

    /// The member that an OCI layout keeps under a digest; `None` if it is not there.
    ///
    /// # Errors
    /// [`Error::Document`] if its bytes have another digest.
    pub fn blob(&self, digest: &Digest) -> Result<Option<&Member>> {
        let name = format!("blobs/{}/{}", digest.algorithm().name(), digest.hex());
        let Some(member) = self.find(&name) else {
            return Ok(None);
        };
        // Members are hashed by SHA-256; another algorithm is checked when the blob is used.
        if digest.algorithm() == Algorithm::Sha256 && member.digest != *digest {
            return Err(Error::document(
                name,
                format!("its digest is {}", member.digest),
            ));
        }
        Ok(Some(member))
    }
}

fn spool(lease: &Lease<'_>, data: &mut impl Read) -> Result<Member> {
    let file = lease.scratch();
    let at = Error::io("write", &file.display());
    let mut hashed = Hashed::new(File::create_new(&file).map_err(&at)?, Algorithm::Sha256);
    io::copy(data, &mut hashed).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => {
            tar::Error::Stream(error).into()
        }
        _ => at(error),
    })?;
    let (_, digest, size) = hashed.finish();
    Ok(Member { file, digest, size })
}

/// A name without `.`, `..` and doubled slashes, relative to `base`; `None` if it leads out.
fn plain_name(path: &[u8], base: &[u8]) -> Option<String> {
    let whole = join(base, path);
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in whole.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()?),
            _ => parts.push(part),
        }
    }
    String::from_utf8(parts.join(&b'/')).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_plain_or_refused() {
        for (path, base, want) in [
            ("./a//b/", "", Some("a/b")),
            ("../x/layer.tar", "y", Some("x/layer.tar")),
            ("../../x", "y", None),
            ("/etc", "", Some("etc")),
        ] {
            assert_eq!(
                plain_name(path.as_bytes(), base.as_bytes()).as_deref(),
                want,
                "{path}"
            );
        }
    }
}
