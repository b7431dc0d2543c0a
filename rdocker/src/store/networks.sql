-- Schema 2: networks, the running containers on them, links between containers.
CREATE TABLE networks (
    id       TEXT PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    settings TEXT NOT NULL, -- network::Network as JSON
    last4    TEXT,          -- the IPv4 address that was given last
    last6    TEXT
) WITHOUT ROWID;
CREATE TABLE endpoints (
    network   TEXT NOT NULL,
    container TEXT NOT NULL,
    settings  TEXT NOT NULL, -- network::Endpoint as JSON
    PRIMARY KEY (container, network)
) WITHOUT ROWID;
-- `--link` on the default bridge: `parent` calls `child` by `alias`.
CREATE TABLE links (
    parent TEXT NOT NULL,
    child  TEXT NOT NULL,
    alias  TEXT NOT NULL,
    PRIMARY KEY (parent, alias)
) WITHOUT ROWID;
CREATE INDEX endpoints_network ON endpoints (network);
CREATE INDEX links_child ON links (child);
