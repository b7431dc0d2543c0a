//! Taking layers in: a stream becomes an unpacked layer with a checked digest, and a list of them
//! becomes a chain.
//!
//! Decompression runs in a thread of its own beside hashing and unpacking, and several layers run
//! at once; only linking the chain is in order.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::host::in_first_user_namespace;
use crate::store::digest::{Algorithm, Digest, Hashed};
use crate::store::lease::Lease;

use super::config::chain_ids;
use super::layer::compress::{Compression, decompress};
use super::layer::graft::{Below, graft, open_root};
use super::layer::{Form, Unpacked, unpack};
use super::manifest::media;
use super::{Error, Result, tar};

/// Bytes of one piece that travels between two threads.
const PIECE: usize = 256 << 10;
/// Pieces under way between two threads.
const PIECES: usize = 8;

/// A layer that was unpacked into scratch space and is in no chain yet.
pub struct Fresh {
    scratch: PathBuf,
    unpacked: Unpacked,
    /// Digest of the plain tar.
    pub diff_id: Digest,
    /// How the stream was compressed.
    pub compression: Compression,
}

/// A layer on its way into a chain.
pub enum Incoming {
    /// The store has it already.
    Present,
    /// It was unpacked.
    Fresh(Fresh),
}

/// The form that layers have in this store, here.
pub fn layer_form() -> Form {
    Form::Overlay {
        userxattr: !in_first_user_namespace(),
    }
}

/// The media type of a layer that is compressed so.
pub fn layer_media_type(compression: Compression) -> &'static str {
    match compression {
        Compression::Gzip => media::OCI_LAYER_GZIP,
        Compression::Zstd => media::OCI_LAYER_ZSTD,
        _ => media::OCI_LAYER,
    }
}

/// Unpacks a layer from a stream of any compression.
///
/// # Errors
/// [`Error::Document`] if the plain tar does not have the digest `want`; an archive error.
pub fn unpack_layer(
    lease: &Lease<'_>,
    stream: impl Read + Send,
    want: Option<&Digest>,
) -> Result<Fresh> {
    let scratch = lease.scratch();
    let diff = scratch.join("diff");
    let make = |path: &PathBuf, mode| {
        let at = Error::io("create directory", &path.display());
        fs::DirBuilder::new().mode(mode).create(path).map_err(at)
    };
    make(&scratch, 0o700)?;
    make(&diff, 0o755)?;
    let root = open_root(&diff)?;
    let plain = decompress(stream).map_err(tar::Error::Stream)?;
    let compression = plain.compression();
    let algorithm = want.map_or(Algorithm::Sha256, Digest::algorithm);
    let (unpacked, diff_id) = std::thread::scope(|scope| {
        let (send, receive) = sync_channel(PIECES);
        scope.spawn(move || pump(plain, &send));
        let mut hashed = Hashed::new(Pieces::new(receive), algorithm);
        let unpacked = unpack(&mut hashed, root.as_fd(), layer_form());
        let (_, diff_id, _) = hashed.finish();
        unpacked.map(|unpacked| (unpacked, diff_id))
    })?;
    if let Some(want) = want.filter(|want| **want != diff_id) {
        return Err(Error::document(
            "layer",
            format!("want diff id {want}, got {diff_id}"),
        ));
    }
    Ok(Fresh {
        scratch,
        unpacked,
        diff_id,
        compression,
    })
}

/// Links layers, lowest first, to a chain and moves them into the store; the lease keeps them.
pub fn adopt(lease: &Lease<'_>, diff_ids: &[Digest], layers: Vec<Incoming>) -> Result<()> {
    if layers.len() != diff_ids.len() {
        let (want, got) = (diff_ids.len(), layers.len());
        return Err(Error::document(
            "image",
            format!("want {want} layers, got {got}"),
        ));
    }
    let mut below: Vec<PathBuf> = Vec::new();
    for (chain, layer) in chain_ids(diff_ids).iter().zip(layers) {
        if let Incoming::Fresh(fresh) = layer {
            fresh.adopt(lease, chain, &below)?;
        }
        below.push(lease.store().layer_path(chain));
    }
    Ok(())
}

impl Fresh {
    /// Fits the layer to those below, lowest first, and moves it into the store.
    pub fn adopt(self, lease: &Lease<'_>, chain: &Digest, below: &[PathBuf]) -> Result<()> {
        let mut size = self.unpacked.size;
        if !self.unpacked.implied.is_empty() || !self.unpacked.links_below.is_empty() {
            let root = open_root(&self.scratch.join("diff"))?;
            let below = Below::open(below, !in_first_user_namespace())?;
            size += graft(root.as_fd(), &self.unpacked, &below)?;
        }
        let store = lease.store();
        Ok(store.adopt_layer(lease, &self.scratch, chain, &self.diff_id, size)?)
    }
}

/// Reads a stream in pieces and sends them until nobody listens.
fn pump(mut stream: impl Read, send: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut piece = vec![0; PIECE];
        match fill(&mut stream, &mut piece) {
            Ok(0) => return,
            Ok(n) => {
                piece.truncate(n);
                if send.send(Ok(piece)).is_err() {
                    return;
                }
            }
            Err(error) => {
                // The receiver may have gone with an error of its own, which is the first one.
                let _ = send.send(Err(error));
                return;
            }
        }
    }
}

fn fill(stream: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while have < piece.len() {
        match stream.read(&mut piece[have..]) {
            Ok(0) => break,
            Ok(n) => have += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

/// The receiving end of pieces from another thread, as a stream.
pub struct Pieces {
    receive: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

impl Pieces {
    /// A stream of what `receive` gets; it ends when the sender is gone.
    pub fn new(receive: Receiver<io::Result<Vec<u8>>>) -> Pieces {
        Pieces {
            receive,
            piece: Vec::new(),
            at: 0,
        }
    }
}

impl Read for Pieces {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.receive.recv() {
                Ok(piece) => (self.piece, self.at) = (piece?, 0),
                Err(_) => return Ok(0),
            }
        }
        let n = buf.len().min(self.piece.len() - self.at);
        buf[..n].copy_from_slice(&self.piece[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// A layer to be taken from a blob that the store has.
pub struct FromBlob<'a> {
    /// Which blob.
    pub blob: &'a Digest,
    /// Digest of its plain tar.
    pub diff_id: &'a Digest,
    /// The layer's id in its chain.
    pub chain: &'a Digest,
}

/// Takes the layer of a blob: finds it in the store, or unpacks it.
pub fn from_blob(lease: &Lease<'_>, layer: &FromBlob<'_>) -> Result<Incoming> {
    let store = lease.store();
    if store.keep_layer(lease, layer.chain)?.is_some() {
        return Ok(Incoming::Present);
    }
    let path = store.blob_path(layer.blob);
    let file = File::open(&path).map_err(Error::io("open", &path.display()))?;
    let mut hashed = Hashed::new(file, layer.blob.algorithm());
    let fresh = unpack_layer(lease, &mut hashed, Some(layer.diff_id))?;
    // The plain tar has its digest; the blob around it may have more to it, so count it all.
    io::copy(&mut hashed, &mut io::sink()).map_err(Error::io("read", &path.display()))?;
    let (_, digest, _) = hashed.finish();
    if digest != *layer.blob {
        return Err(Error::document(
            "blob",
            format!("want digest {}, got {digest}", layer.blob),
        ));
    }
    Ok(Incoming::Fresh(fresh))
}

/// Runs a task for each item on a few threads; the first error stops those not begun.
pub fn parallel<T: Sync, R: Send>(
    items: &[T],
    threads: usize,
    task: impl Fn(usize, &T) -> Result<R> + Sync,
) -> Result<Vec<R>> {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let results: Mutex<Vec<Option<Result<R>>>> = Mutex::new(items.iter().map(|_| None).collect());
    let worker = || {
        while !failed.load(Ordering::Relaxed) {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            let result = task(at, item);
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            results.lock().expect("no task panics")[at] = Some(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(worker);
        }
    });
    let mut results: Vec<_> = results.into_inner().expect("no task panics");
    // Report the error that happened, not a task that was not begun because of it.
    if let Some(at) = results
        .iter()
        .position(|result| matches!(result, Some(Err(_))))
        && let Some(Err(error)) = results.swap_remove(at)
    {
        return Err(error);
    }
    results
        .into_iter()
        .map(|result| result.expect("every task ran"))
        .collect()
}
