-- The registry: its ledger, and the tables projected from it. Never dropped, never partitioned.

-- One counter row, updated in the transaction of every registry change, so that versions commit in order.
CREATE TABLE hookledger.registry_version (
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    version bigint NOT NULL
);
INSERT INTO hookledger.registry_version (version) VALUES (0);

CREATE SEQUENCE hookledger.registry_fact_position;

CREATE TABLE hookledger.registry_fact (
    stream           uuid NOT NULL,
    version          integer NOT NULL,
    position         bigint NOT NULL DEFAULT nextval('hookledger.registry_fact_position'),
    xact             xid8 NOT NULL DEFAULT pg_current_xact_id(),
    epoch            integer NOT NULL,
    org              uuid NOT NULL,
    app              uuid,
    endpoint         uuid,
    kind             text NOT NULL,
    schema           smallint NOT NULL,
    at               timestamptz NOT NULL,
    actor            text NOT NULL,
    registry_version bigint NOT NULL,
    data             bytea NOT NULL,
    PRIMARY KEY (stream, version)
);
CREATE INDEX registry_fact_by_org ON hookledger.registry_fact (org, position DESC);
CREATE INDEX registry_fact_order ON hookledger.registry_fact (epoch, xact, position);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON hookledger.registry_fact
    FOR EACH ROW EXECUTE FUNCTION hookledger.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON hookledger.registry_fact
    FOR EACH STATEMENT EXECUTE FUNCTION hookledger.refuse_change();

-- One table for all kinds of registry object: the fold of each stream of registry_fact. What every kind has is a
-- column; what one kind has is in `data`. A deleted object stays, so that what happened can be explained, and so that
-- a snapshot at version N comes to version M by reading the rows changed in between.
CREATE TABLE hookledger.registry_object (
    id               uuid PRIMARY KEY,
    kind             text NOT NULL, -- organisation, application, endpoint, source, event_type, api_key
    org              uuid NOT NULL,
    app              uuid,          -- of endpoints and sources
    uid              text,          -- the user's own name for it; an event type's name; an organisation's broker user
    version          integer NOT NULL,
    registry_version bigint NOT NULL,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    deleted_at       timestamptz,
    data             jsonb NOT NULL
);
CREATE UNIQUE INDEX registry_object_uid ON hookledger.registry_object
    (kind, (CASE WHEN kind = 'organisation' THEN NULL ELSE org END), app, uid) NULLS NOT DISTINCT
    WHERE deleted_at IS NULL AND uid IS NOT NULL;
CREATE UNIQUE INDEX registry_object_key_hash ON hookledger.registry_object ((data ->> 'hash')) WHERE kind = 'api_key';
CREATE INDEX registry_object_by_org ON hookledger.registry_object (kind, org, id) WHERE deleted_at IS NULL;
CREATE INDEX registry_object_by_app ON hookledger.registry_object (kind, app, id) WHERE deleted_at IS NULL;
CREATE INDEX registry_object_changed ON hookledger.registry_object (registry_version);

-- Secrets, sealed with the master key. They stand apart from the facts, which name them by id and fingerprint only:
-- facts cannot be wrapped anew or erased.
CREATE TABLE hookledger.secret (
    id         uuid PRIMARY KEY,
    owner      uuid NOT NULL, -- an endpoint or a source
    org        uuid NOT NULL,
    sealed     bytea NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz
);
CREATE INDEX secret_by_owner ON hookledger.secret (owner, created_at DESC);

GRANT SELECT ON hookledger.registry_version, hookledger.registry_object, hookledger.secret
    TO hookledger_ingress, hookledger_dispatcher;
GRANT SELECT, UPDATE ON hookledger.registry_version TO hookledger_registry;
GRANT USAGE ON SEQUENCE hookledger.registry_fact_position TO hookledger_registry;
GRANT SELECT, INSERT ON hookledger.registry_fact TO hookledger_registry;
GRANT SELECT, INSERT, UPDATE ON hookledger.registry_object TO hookledger_registry;
GRANT SELECT, INSERT, UPDATE, DELETE ON hookledger.secret TO hookledger_registry;
