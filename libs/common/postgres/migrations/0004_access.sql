-- Who may come in beside the registry's objects: application tokens, and when each key was last used. What a list of
-- changes is filtered by. And how far the erasure of payloads has come.

-- Application tokens: short-lived, so rows and not registry objects. That one was issued or ended is a registry_fact.
CREATE TABLE hookledger.app_token (
    id            uuid PRIMARY KEY,
    hash          bytea NOT NULL UNIQUE, -- SHA-256
    org           uuid NOT NULL,
    app           uuid NOT NULL,
    capabilities  text[] NOT NULL,
    feature_flags text[] NOT NULL,
    created_at    timestamptz NOT NULL,
    expires_at    timestamptz NOT NULL
);
CREATE INDEX app_token_by_app ON hookledger.app_token (app, expires_at);
CREATE INDEX app_token_by_expiry ON hookledger.app_token (expires_at);

-- When each API key was last used, to the minute. Apart from the keys, whose changes are facts.
CREATE TABLE hookledger.key_use (
    key          uuid PRIMARY KEY,
    last_used_at timestamptz NOT NULL
) WITH (fillfactor = 70);

CREATE INDEX registry_fact_by_stream ON hookledger.registry_fact (org, stream, position DESC);
CREATE INDEX registry_fact_by_app ON hookledger.registry_fact (org, app, position DESC);
CREATE INDEX registry_fact_by_actor ON hookledger.registry_fact (org, actor, position DESC);
CREATE INDEX registry_fact_by_kind ON hookledger.registry_fact (org, kind, position DESC);

-- Per application, the message before which no payload is left to erase.
CREATE TABLE hookledger.payload_erasure (
    app    uuid PRIMARY KEY,
    before uuid NOT NULL
);

GRANT SELECT, INSERT, UPDATE, DELETE ON hookledger.app_token TO hookledger_registry;
GRANT SELECT, INSERT, UPDATE ON hookledger.key_use TO hookledger_registry, hookledger_ingress;
GRANT SELECT, INSERT, UPDATE ON hookledger.payload_erasure TO hookledger_registry;
GRANT SELECT, DELETE ON hookledger.message_body, hookledger.attempt_content TO hookledger_registry;
