-- What a build step gave, so that the same step on the same state need not run again.
CREATE TABLE build_cache (
    key     TEXT PRIMARY KEY, -- digest of the state before and of the instruction
    diff    TEXT,             -- the layer's plain tar; NULL if the step made no layer
    chain   TEXT,             -- the layer where it was made
    created TEXT NOT NULL,    -- RFC 3339
    used    INTEGER NOT NULL, -- Unix seconds of the last use
    uses    INTEGER NOT NULL,
    text    TEXT NOT NULL     -- the instruction, for people
) WITHOUT ROWID;
CREATE INDEX build_cache_chain ON build_cache (chain);
CREATE INDEX build_cache_diff ON build_cache (diff);
