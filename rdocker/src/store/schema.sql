-- Tables of meta.db, schema 1. Content is named by digest: blobs by the digest of their bytes,
-- layers by chain id. Anything here that is not reachable from images, holds or leases is garbage.
CREATE TABLE blobs (digest TEXT PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE layers (
    chain TEXT PRIMARY KEY,
    diff  TEXT NOT NULL,
    size  INTEGER NOT NULL -- bytes of all files, as Docker counts an image's size
) WITHOUT ROWID;
-- Which blobs hold the layer whose plain tar has the digest `diff`.
CREATE TABLE layer_blobs (
    diff       TEXT NOT NULL,
    digest     TEXT NOT NULL,
    media_type TEXT NOT NULL,
    PRIMARY KEY (diff, digest)
) WITHOUT ROWID;
-- Where a blob was seen, so that a push can ask the registry to mount it from there.
CREATE TABLE blob_sources (
    digest     TEXT NOT NULL,
    registry   TEXT NOT NULL,
    repository TEXT NOT NULL,
    PRIMARY KEY (digest, registry, repository)
) WITHOUT ROWID;
CREATE TABLE images (
    id       TEXT PRIMARY KEY, -- digest of the configuration
    manifest TEXT,             -- digest of the manifest it came with
    parent   TEXT,             -- the local image it was committed from
    added    INTEGER NOT NULL  -- Unix seconds
) WITHOUT ROWID;
CREATE TABLE image_layers (
    image    TEXT NOT NULL,
    position INTEGER NOT NULL,
    chain    TEXT NOT NULL,
    PRIMARY KEY (image, position)
) WITHOUT ROWID;
CREATE TABLE image_blobs (
    image  TEXT NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (image, digest)
) WITHOUT ROWID;
CREATE TABLE tags (name TEXT PRIMARY KEY, image TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE repo_digests (
    name   TEXT NOT NULL,
    digest TEXT NOT NULL,
    image  TEXT NOT NULL,
    PRIMARY KEY (name, digest)
) WITHOUT ROWID;
-- A hold keeps an image's layers as long as its owner (a container) lives.
CREATE TABLE holds (
    owner TEXT NOT NULL,
    chain TEXT NOT NULL,
    PRIMARY KEY (owner, chain)
) WITHOUT ROWID;
-- A lease keeps content while one process works on it; it ends with the process.
CREATE TABLE leases (
    owner   TEXT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (owner, content)
) WITHOUT ROWID;
CREATE INDEX tags_image ON tags (image);
CREATE INDEX repo_digests_image ON repo_digests (image);
CREATE INDEX image_layers_chain ON image_layers (chain);
