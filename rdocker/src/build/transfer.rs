//! `COPY` and `ADD`.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::chmod::Chmod;
use super::context::{Context, is_tar, open_directory, scratch_dir};
use super::git::Git;
use super::ignore::Ignore;
use super::key::Key;
use super::remote;
use super::report::At;
use super::source::{Found, Root, Source};
use super::stage::{Plan, Work};
use super::tree::{self, Node, Owner, Place, Shape};
use crate::container::identity::Accounts;
use crate::dockerfile::{Instruction, Step, Transfer};
use crate::error::{Error, Result};
use crate::image::instruction::workdir;
use crate::image::layer::compress::decompress;
use crate::image::layer::files::open_in_root;
use crate::image::layer::{Form, unpack};
use crate::store::digest::Digest;

/// One thing to be copied: where it is, what is in it, what it is called.
struct Item<'s> {
    source: &'s Source<'s>,
    found: Found,
    nodes: Vec<Node>,
    /// Its name in a target directory; `None` for the contents of a directory.
    name: Option<Vec<u8>>,
    owner: Owner,
}

/// What the flags say, variables expanded.
struct Flags {
    target: String,
    chown: Option<String>,
    chmod: Option<Chmod>,
    exclude: Ignore,
    from: Option<String>,
}

impl Work<'_, '_> {
    /// Copies files into a new layer.
    pub(super) fn transfer(&mut self, at: At, step: &Step, transfer: &Transfer) -> Result<()> {
        let flags = self.flags(transfer)?;
        let is_add = matches!(step.instruction, Instruction::Add(_));
        let mut words = Vec::new();
        for text in &transfer.sources {
            words.push(self.word(text)?);
        }
        let main = self.build.source(self.index, flags.from.as_deref())?;
        let shown = words.clone();
        if is_add {
            words = expand_patterns(&words, &main)?;
        }
        // What has to be made first: here-documents, downloads, repositories, unpacked archives.
        let mut made: Vec<(Made, Source<'_>)> = Vec::new();
        let made_contexts = self.make(transfer, &words, is_add, &main)?;
        for (made_one, context) in &made_contexts {
            made.push((made_one.clone(), Source::Context(context, &NOTHING)));
        }
        let items = self.items(transfer, &words, &flags, &main, &made)?;
        let created_by = created_by(step, transfer, &shown, &flags);
        let plan_key = self.transfer_key(transfer, &flags, &items)?;
        let plan = Plan {
            key: plan_key,
            created_by: &created_by,
        };
        if self.cached(at, &plan)? {
            return Ok(());
        }
        let upper = self.place(transfer, &flags, &items)?;
        self.finish(&plan, Some(&upper))
    }

    fn flags(&self, transfer: &Transfer) -> Result<Flags> {
        let word = |text: &Option<String>| text.as_deref().map(|text| self.word(text)).transpose();
        let chmod = word(&transfer.chmod)?
            .map(|text| Chmod::parse(&text))
            .transpose();
        let mut exclude = Vec::new();
        for pattern in &transfer.exclude {
            exclude.push(self.word(pattern)?);
        }
        let target = self.word(&transfer.target)?;
        let is_dir = target.ends_with('/') || target.ends_with("/.") || target == ".";
        let mut whole = workdir(&self.state.config.config.working_dir, &target);
        if is_dir && !whole.ends_with('/') {
            whole.push('/');
        }
        Ok(Flags {
            target: whole,
            chown: word(&transfer.chown)?.filter(|text| !text.is_empty()),
            chmod: chmod.map_err(Error::Invalid)?,
            exclude: Ignore::from_patterns(&exclude).map_err(Error::Invalid)?,
            from: word(&transfer.from)?,
        })
    }

    /// Makes what is no file of the source yet.
    fn make(
        &self,
        transfer: &Transfer,
        words: &[String],
        is_add: bool,
        main: &Source<'_>,
    ) -> Result<Vec<(Made, Context)>> {
        let mut made = Vec::new();
        for heredoc in &transfer.heredocs {
            let dir = scratch_dir(self.build.lease)?;
            let body = heredoc.body();
            let body = match heredoc.expand {
                true => self
                    .scope
                    .with(self.env(), |expand| expand.text(&body))
                    .map_err(Error::Invalid)?,
                false => body,
            };
            let name = workdir("/", &heredoc.name)
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned();
            let file = dir.join(&name);
            write_plain(&file, body.as_bytes(), 0)?;
            made.push((Made::File(name), context(dir)?));
        }
        if !is_add || transfer.from.is_some() {
            return Ok(made);
        }
        for word in words {
            made.extend(self.fetch(transfer, word, main)?);
        }
        Ok(made)
    }

    /// What `ADD` does with a source: fetches it, unpacks it; `None` leaves it to be copied.
    fn fetch(
        &self,
        transfer: &Transfer,
        word: &str,
        main: &Source<'_>,
    ) -> Result<Option<(Made, Context)>> {
        if let Some(git) = Git::parse(word)? {
            let dir = scratch_dir(self.build.lease)?;
            git.check_out(&dir)?;
            if !transfer.keep_git_dir {
                crate::store::gc::remove_tree(&dir.join(".git"))?;
            }
            let context = Context {
                root: git.open(&dir)?,
                alone: None,
                directory: None,
            };
            return Ok(Some((Made::Contents(word.to_owned()), context)));
        }
        if remote::is_http(word) {
            let dir = scratch_dir(self.build.lease)?;
            let name = remote::file_name(word)?;
            let path = dir.join(&name);
            let checksum = transfer
                .checksum
                .as_deref()
                .map(|text| self.word(text))
                .transpose()?;
            let checksum = checksum.map(|text| text.parse::<Digest>()).transpose();
            let checksum = checksum.map_err(|error| Error::Invalid(error.to_string()))?;
            let fetched = remote::fetch(word, &path, checksum.as_ref())?;
            private(&path, fetched.modified)?;
            if transfer.unpack == Some(true)
                && let Some(dir) = self.unpack(std::fs::File::open(&path).ok())?
            {
                return Ok(Some((Made::Contents(word.to_owned()), context(dir)?)));
            }
            return Ok(Some((Made::Fetched(word.to_owned(), name), context(dir)?)));
        }
        if transfer.checksum.is_some() {
            return Err(Error::Invalid(
                "checksum can't be specified for non-HTTP(S) sources".to_owned(),
            ));
        }
        if transfer.unpack == Some(false) || super::glob::is_pattern(word) {
            return Ok(None);
        }
        let found = main.literal(word)?;
        if found.is_dir {
            return Ok(None);
        }
        let file = main.open(&found)?;
        let is_file = file.metadata().is_ok_and(|meta| meta.is_file());
        Ok(match self.unpack(Some(file).filter(|_| is_file))? {
            Some(dir) => Some((Made::Contents(word.to_owned()), context(dir)?)),
            None => None,
        })
    }

    /// Unpacks a file if it is an archive.
    fn unpack(&self, file: Option<std::fs::File>) -> Result<Option<PathBuf>> {
        let Some(mut file) = file else {
            return Ok(None);
        };
        let mut start = Vec::new();
        let probe = |file: &mut std::fs::File, start: &mut Vec<u8>| -> io::Result<()> {
            let mut plain = decompress(&*file)?;
            plain.by_ref().take(512).read_to_end(start).map(drop)
        };
        // Whatever does not decompress or has no header is a file like any other.
        if probe(&mut file, &mut start).is_err() || !is_tar(&start) {
            return Ok(None);
        }
        io::Seek::rewind(&mut file)
            .map_err(|errno| Error::host("read", Path::new("archive"), errno))?;
        let plain =
            decompress(file).map_err(|errno| Error::host("read", Path::new("archive"), errno))?;
        let dir = scratch_dir(self.build.lease)?;
        let root = open_directory(&dir)?;
        unpack(plain, root.as_fd(), Form::Plain).map_err(crate::image::Error::from)?;
        Ok(Some(dir))
    }

    /// Everything that is copied, listed.
    fn items<'s>(
        &self,
        transfer: &Transfer,
        words: &[String],
        flags: &Flags,
        main: &'s Source<'s>,
        made: &'s [(Made, Source<'s>)],
    ) -> Result<Vec<Item<'s>>> {
        let mut items = Vec::new();
        let mut push = |source: &'s Source<'s>, found: Found, name, owner| -> Result<()> {
            let base = String::from_utf8_lossy(&found.name).into_owned();
            if !found.is_dir && (flags.exclude.matches(&base)) {
                return Ok(());
            }
            let nodes = source.list(&found, &flags.exclude)?;
            items.push(Item {
                source,
                found,
                nodes,
                name,
                owner,
            });
            Ok(())
        };
        for (one, source) in made {
            if let Made::File(name) = one {
                push(
                    source,
                    source.literal(name)?,
                    Some(name.clone().into_bytes()),
                    Owner::Set(0, 0),
                )?;
            }
        }
        for word in words {
            let of_word = made.iter().find(|(one, _)| one.is_of(word));
            match of_word {
                Some((Made::Fetched(_, name), source)) => {
                    push(
                        source,
                        source.literal(name)?,
                        Some(name.clone().into_bytes()),
                        Owner::Set(0, 0),
                    )?;
                }
                Some((_, source)) => push(source, source.literal("/")?, None, Owner::Keep)?,
                None => {
                    let (pattern, pivot) = pivot(word);
                    for found in main.find(&pattern)? {
                        let name = match (transfer.parents, found.is_dir) {
                            (true, _) => Some(found.given[pivot.min(found.given.len())..].to_vec()),
                            (false, true) => None,
                            (false, false) => Some(found.name.clone()),
                        };
                        push(main, found, name, main.owner())?;
                    }
                }
            }
        }
        if items.is_empty() {
            return Err(Error::Invalid(
                "COPY failed: no source files were specified".to_owned(),
            ));
        }
        Ok(items)
    }

    fn transfer_key(
        &self,
        transfer: &Transfer,
        flags: &Flags,
        items: &[Item<'_>],
    ) -> Result<Digest> {
        let mut key = match transfer.link {
            true => Key::new("copy --link"),
            false => self.key("copy"),
        };
        key.number(self.build.epoch.unwrap_or(-1).cast_unsigned());
        key.text(&flags.target);
        key.text(flags.chown.as_deref().unwrap_or_default());
        if transfer.link && flags.chown.is_some() {
            // Names are looked up in what is below.
            key.text(
                &self
                    .state
                    .chains
                    .last()
                    .map(Digest::to_string)
                    .unwrap_or_default(),
            );
        }
        key.text(&format!("{:?}", flags.chmod));
        key.number(u64::from(transfer.parents));
        key.number(items.len() as u64);
        for item in items {
            key.field(item.name.as_deref().unwrap_or_default());
            key.number(u64::from(item.name.is_none()));
            tree::describe(&item.nodes, item.owner, &mut key);
        }
        Ok(key.finish())
    }

    /// Copies the items; gives the directory with what changed.
    fn place(&self, transfer: &Transfer, flags: &Flags, items: &[Item<'_>]) -> Result<PathBuf> {
        let layers = self.build.paths(&self.state.chains);
        if !transfer.link {
            let root = Root::mount(self.build, &layers)?;
            let owner = owner(flags, &Accounts::read(&root.path())?)?;
            copy_items(root.fd.as_fd(), transfer, flags, items, owner)?;
            return root.finish();
        }
        let numeric = |text: &String| text.bytes().all(|b| b.is_ascii_digit() || b == b':');
        let accounts = match &flags.chown {
            Some(text) if !numeric(text) => {
                Accounts::read(&Root::mount(self.build, &layers)?.path())?
            }
            _ => Accounts::default(),
        };
        let owner = owner(flags, &accounts)?;
        let dir = scratch_dir(self.build.lease)?;
        let root = open_directory(&dir)?;
        copy_items(root.as_fd(), transfer, flags, items, owner)?;
        Ok(dir)
    }
}

/// Names instead of patterns, so that `ADD` can look at each file whether it is an archive.
fn expand_patterns(words: &[String], main: &Source<'_>) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for word in words {
        if remote::is_http(word) || Git::parse(word)?.is_some() || !super::glob::is_pattern(word) {
            names.push(word.clone());
            continue;
        }
        for found in main.find(word)? {
            names.push(String::from_utf8_lossy(&found.given).into_owned());
        }
    }
    Ok(names)
}

/// What was made for a source, or for a here-document.
#[derive(Clone)]
enum Made {
    /// A here-document's name.
    File(String),
    /// A downloaded source, and its file.
    Fetched(String, String),
    /// A source whose contents are copied.
    Contents(String),
}

impl Made {
    fn is_of(&self, word: &str) -> bool {
        matches!(self, Self::Fetched(source, _) | Self::Contents(source) if source == word)
    }
}

static NOTHING: std::sync::LazyLock<Ignore> = std::sync::LazyLock::new(Ignore::default);

fn context(dir: PathBuf) -> Result<Context> {
    Ok(Context {
        root: open_directory(&dir)?,
        alone: None,
        directory: None,
    })
}

/// `a/./b`: with `--parents` the part after `./` is what is kept.
fn pivot(word: &str) -> (String, usize) {
    match word.split_once("/./") {
        Some((before, after)) => {
            let before = workdir("/", before);
            let length = before.trim_start_matches('/').len();
            let pivot = if length == 0 { 0 } else { length + 1 };
            (format!("{before}/{after}"), pivot)
        }
        None => (word.to_owned(), 0),
    }
}

/// The flags' owner by the accounts of the image.
fn owner(flags: &Flags, accounts: &Accounts) -> Result<Option<(u32, u32)>> {
    let Some(text) = &flags.chown else {
        return Ok(None);
    };
    let id = accounts.resolve(text, &[])?;
    // Without a group the group has the user's number.
    let gid = if text.contains(':') { id.gid } else { id.uid };
    Ok(Some((id.uid, gid)))
}

fn copy_items(
    root: std::os::fd::BorrowedFd<'_>,
    transfer: &Transfer,
    flags: &Flags,
    items: &[Item<'_>],
    owner: Option<(u32, u32)>,
) -> Result<()> {
    let target = flags.target.trim_matches('/').as_bytes();
    let flags_dir = rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY;
    let several = items.len() > 1 || transfer.parents;
    let is_dir =
        flags.target.ends_with('/') || several || open_in_root(root, target, flags_dir).is_ok();
    let made_by = owner.unwrap_or((0, 0));
    for item in items {
        let shape = Shape {
            owner: owner.map_or(item.owner, |(uid, gid)| Owner::Set(uid, gid)),
            mode: &|node| match &flags.chmod {
                Some(chmod) => chmod.apply(node.mode, node.kind),
                None => node.mode,
            },
        };
        let path = match &item.name {
            Some(name) if is_dir => crate::image::layer::pack::join(target, name),
            _ => target.to_vec(),
        };
        let above = match (&item.name, is_dir && flags.target.ends_with('/')) {
            // A target that is said to be a directory is made like one.
            (None, true) => &path[..],
            _ => tree::parent(&path).0,
        };
        tree::make_dirs(root, above, made_by)?;
        let place = Place {
            root,
            path: &path,
            keep_root: true,
        };
        item.source.copy(&item.found, &item.nodes, &place, &shape)?;
    }
    Ok(())
}

/// What history shows: the instruction with its flags, variables expanded.
fn created_by(step: &Step, transfer: &Transfer, words: &[String], flags: &Flags) -> String {
    let mut shown = vec![step.instruction.name().to_owned()];
    for (name, value) in [
        ("from", &flags.from),
        ("chown", &flags.chown),
        ("chmod", &transfer.chmod),
        ("checksum", &transfer.checksum),
    ] {
        shown.extend(value.as_ref().map(|value| format!("--{name}={value}")));
    }
    for (name, given) in [("link", transfer.link), ("parents", transfer.parents)] {
        shown.extend(given.then(|| format!("--{name}")));
    }
    shown.extend(
        transfer
            .exclude
            .iter()
            .map(|pattern| format!("--exclude={pattern}")),
    );
    shown.extend(
        transfer
            .heredocs
            .iter()
            .map(|heredoc| format!("<<{}", heredoc.name)),
    );
    shown.extend(words.iter().cloned());
    shown.push(flags.target.clone());
    shown.join(" ")
}

fn write_plain(path: &Path, bytes: &[u8], modified: i64) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let at = |errno| Error::host("write", path, errno);
    std::fs::write(path, bytes).map_err(at)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).map_err(at)?;
    set_time(path, modified)
}

/// A download is its user's alone, as Docker leaves it.
fn private(path: &Path, modified: i64) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let at = |errno| Error::host("set the mode of", path, errno);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(at)?;
    set_time(path, modified)
}

fn set_time(path: &Path, seconds: i64) -> Result<()> {
    let at = |errno| Error::host("set the time of", path, errno);
    let time =
        std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds.max(0).cast_unsigned());
    let file = std::fs::File::options()
        .append(true)
        .open(path)
        .map_err(at)?;
    file.set_modified(time).map_err(at)
}
