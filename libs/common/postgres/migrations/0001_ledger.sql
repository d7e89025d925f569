-- The two ledgers, the messages, and what delivers them. Valid on Postgres 15 to 18.

-- Services log in as whoever the database's URL says and take one of these roles at once. They exist once in a
-- cluster; where the migrating user may not create roles, an operator creates them beforehand.
DO $$
DECLARE
    service text;
BEGIN
    FOREACH service IN ARRAY ARRAY['hookledger_ingress', 'hookledger_dispatcher', 'hookledger_registry'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = service) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', service);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- another database of this cluster is being migrated at the same moment
        END;
        IF NOT pg_has_role(current_user, service, 'MEMBER') THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', service);
        END IF;
    END LOOP;
END
$$;

CREATE SCHEMA projection_1;
GRANT USAGE ON SCHEMA hookledger, projection_1 TO hookledger_ingress, hookledger_dispatcher, hookledger_registry;

-- Transaction ids start anew after a logical restore, so that a cursor needs to know which life of the database it
-- belongs to. `hookledger migrate` opens a new epoch when the database finds itself in another cluster.
CREATE TABLE hookledger.ledger_epoch (
    epoch             integer PRIMARY KEY,
    system_identifier bigint NOT NULL,
    database_oid      oid NOT NULL,
    began_at          timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE FUNCTION hookledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % on % is refused', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$;

-- ---------------------------------------------------------------------------------------------------------------
-- The ledger of messages and deliveries. A stream is a message or a delivery; both ids begin with the message's
-- time, so a stream lies in one weekly partition, and late facts beside their message.
CREATE SEQUENCE hookledger.fact_position;

CREATE TABLE hookledger.fact (
    stream   uuid NOT NULL,
    version  integer NOT NULL,
    position bigint NOT NULL DEFAULT nextval('hookledger.fact_position'),
    xact     xid8 NOT NULL DEFAULT pg_current_xact_id(),
    epoch    integer NOT NULL,
    app      uuid NOT NULL,
    endpoint uuid,
    kind     text NOT NULL,
    schema   smallint NOT NULL,
    at       timestamptz NOT NULL,
    data     bytea NOT NULL,
    PRIMARY KEY (stream, version)
) PARTITION BY RANGE (stream);
CREATE INDEX fact_order ON hookledger.fact (epoch, xact, position);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON hookledger.fact
    FOR EACH ROW EXECUTE FUNCTION hookledger.refuse_change();
CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON hookledger.fact
    FOR EACH STATEMENT EXECUTE FUNCTION hookledger.refuse_change();

-- ---------------------------------------------------------------------------------------------------------------
-- Messages. What can be erased (the bytes, and the salt that keeps their hash from being guessed) stands apart from
-- what is kept as long as the ledger.
CREATE TABLE hookledger.message (
    id               uuid NOT NULL PRIMARY KEY,
    org              uuid NOT NULL,
    app              uuid NOT NULL,
    event_type       text NOT NULL,
    channels         text[] NOT NULL,
    event_id         text,
    origin           text NOT NULL,
    source           uuid,
    ordering_key     text,
    content_type     text NOT NULL,
    body_hash        bytea NOT NULL, -- SHA-256 of salt and body
    body_bytes       integer NOT NULL,
    registry_version bigint NOT NULL,
    publish          boolean NOT NULL,
    accepted_at      timestamptz NOT NULL
) PARTITION BY RANGE (id);
CREATE INDEX message_by_app ON hookledger.message (app, id DESC);
CREATE INDEX message_by_event_id ON hookledger.message (app, event_id) WHERE event_id IS NOT NULL;

CREATE TABLE hookledger.message_body (
    message uuid NOT NULL PRIMARY KEY,
    salt    bytea NOT NULL,
    body    bytea NOT NULL
) PARTITION BY RANGE (message);
ALTER TABLE hookledger.message_body ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE hookledger.attempt_content (
    delivery  uuid NOT NULL,
    attempt   uuid NOT NULL,
    response  bytea,
    url_query text,
    PRIMARY KEY (delivery, attempt)
) PARTITION BY RANGE (delivery);

-- Messages that are committed and not yet fanned out. `after_endpoint` is where a large fan-out goes on.
CREATE TABLE hookledger.outbox (
    message        uuid PRIMARY KEY,
    accepted_at    timestamptz NOT NULL,
    after_endpoint uuid
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);

-- What was accepted under which key. `app` scopes a key; `kind` is one of idempotency_key, event_id, provider_event
-- and cloud_event. Inserted in sorted order, so that two batches never wait for each other in a circle.
CREATE TABLE hookledger.idempotency (
    app          uuid NOT NULL,
    kind         text NOT NULL,
    key          bytea NOT NULL, -- SHA-256 of what the sender named
    message      uuid NOT NULL,
    request_hash bytea NOT NULL,
    created_at   timestamptz NOT NULL,
    PRIMARY KEY (app, kind, key)
);
CREATE INDEX idempotency_age ON hookledger.idempotency USING brin (created_at);

-- The registry's stored answers, sealed, since some of them hold a secret.
CREATE TABLE hookledger.answer (
    digest       bytea PRIMARY KEY, -- SHA-256 of API key id, method, path and Idempotency-Key
    org          uuid NOT NULL,
    request_hash bytea NOT NULL,
    status       smallint,
    sealed       bytea,
    created_at   timestamptz NOT NULL
);

-- Inbound requests and broker messages that could not be accepted; bounded in size and count.
CREATE TABLE hookledger.rejected (
    id      uuid PRIMARY KEY,
    org     uuid,
    app     uuid,
    source  uuid,
    origin  text NOT NULL,
    status  smallint NOT NULL,
    reason  text NOT NULL,
    headers jsonb NOT NULL,
    body    bytea NOT NULL,
    size    integer NOT NULL,
    at      timestamptz NOT NULL
);
CREATE INDEX rejected_by_app ON hookledger.rejected (app, id DESC);

-- ---------------------------------------------------------------------------------------------------------------
-- Projections of the ledger: dropped and rebuilt at will, never consulted for what the ledger does not say.
CREATE TABLE projection_1.delivery_state (
    delivery    uuid NOT NULL PRIMARY KEY,
    app         uuid NOT NULL,
    message     uuid NOT NULL,
    endpoint    uuid NOT NULL,
    status      text NOT NULL,
    version     integer NOT NULL,
    run         smallint NOT NULL,
    attempts    integer NOT NULL,
    failures    integer NOT NULL,
    unknowns    smallint NOT NULL,
    attempt     uuid,
    process     uuid,
    last_status smallint,
    due_at      timestamptz,
    created_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL
) PARTITION BY RANGE (delivery);
CREATE INDEX delivery_state_by_message ON projection_1.delivery_state (message);
CREATE INDEX delivery_state_by_endpoint ON projection_1.delivery_state (endpoint, delivery DESC);
CREATE INDEX delivery_state_by_app ON projection_1.delivery_state (app, delivery DESC);

-- One row for each attempt that has ended, however it ended; the one in flight is in delivery_state.
CREATE TABLE projection_1.attempt (
    delivery       uuid NOT NULL,
    attempt        uuid NOT NULL,
    app            uuid NOT NULL,
    message        uuid NOT NULL,
    endpoint       uuid NOT NULL,
    run            smallint NOT NULL,
    number         integer NOT NULL,
    trigger        text NOT NULL,
    config_version integer NOT NULL,
    signing_key    uuid,
    process        uuid NOT NULL,
    result         text NOT NULL, -- an outcome, or abandoned, or unknown
    status         smallint,
    failure        text,
    url            text,
    peer           text,
    sends          smallint NOT NULL,
    total_us       bigint,
    started_at     timestamptz NOT NULL,
    ended_at       timestamptz NOT NULL,
    PRIMARY KEY (delivery, attempt)
) PARTITION BY RANGE (delivery);
CREATE INDEX attempt_by_endpoint ON projection_1.attempt (endpoint, attempt DESC);
CREATE INDEX attempt_by_message ON projection_1.attempt (message, attempt DESC);
CREATE INDEX attempt_gone ON projection_1.attempt (endpoint, ended_at) WHERE result = 'gone';

-- ---------------------------------------------------------------------------------------------------------------
-- Runtime state of delivering: rebuildable, outside the ledger.
CREATE TABLE hookledger.process (
    id          uuid PRIMARY KEY,
    epoch       integer NOT NULL,
    service     text NOT NULL,
    host        text NOT NULL,
    started_at  timestamptz NOT NULL,
    alive_until timestamptz NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE hookledger.app_turn (
    app      uuid PRIMARY KEY,
    ready_at timestamptz NOT NULL
) WITH (fillfactor = 50);
CREATE INDEX app_turn_ready ON hookledger.app_turn (ready_at);

CREATE TABLE hookledger.lane (
    lane         uuid PRIMARY KEY, -- an endpoint, or the hash of an ordering key
    app          uuid NOT NULL,
    endpoint     uuid NOT NULL,
    ready_at     timestamptz NOT NULL,
    head_due     timestamptz,
    inflight     integer NOT NULL DEFAULT 0,
    max_inflight integer NOT NULL,
    rate         double precision,
    tokens       double precision NOT NULL DEFAULT 0,
    filled_at    timestamptz
) WITH (fillfactor = 50);
CREATE INDEX lane_ready ON hookledger.lane (app, ready_at);

-- Each delivery that is not over. `owner` is the process that sends it now; `counted` says that its lane counts it.
CREATE TABLE hookledger.queue (
    delivery uuid PRIMARY KEY,
    lane     uuid NOT NULL,
    due_at   timestamptz NOT NULL,
    owner    uuid,
    counted  boolean NOT NULL DEFAULT false
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX queue_head ON hookledger.queue (lane, due_at) WHERE owner IS NULL;

-- Where each follower of the ledger has come to.
CREATE TABLE hookledger.checkpoint (
    follower    text PRIMARY KEY,
    epoch       integer NOT NULL,
    xact        xid8 NOT NULL,
    position    bigint NOT NULL,
    owner       uuid,
    owned_until timestamptz
);

-- ---------------------------------------------------------------------------------------------------------------
-- Weekly partitions, four weeks ahead of the database's clock, made by migration and by the services themselves.
CREATE FUNCTION hookledger.create_partitions(weeks_ahead integer DEFAULT 4) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    week_ms  constant bigint := 604800000;
    this     bigint := floor(extract(epoch FROM clock_timestamp()) * 1000 / 604800000)::bigint;
    parent   text;
    name     text;
    made     integer := 0;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('hookledger.create_partitions'));
    FOR week IN this - 1 .. this + weeks_ahead LOOP
        FOREACH parent IN ARRAY ARRAY['hookledger.fact', 'hookledger.message', 'hookledger.message_body',
                'hookledger.attempt_content', 'projection_1.delivery_state', 'projection_1.attempt'] LOOP
            name := parent || '_' || to_char(to_timestamp(week * week_ms / 1000) AT TIME ZONE 'UTC', 'YYYYMMDD');
            CONTINUE WHEN to_regclass(name) IS NOT NULL;
            EXECUTE format('CREATE TABLE %s PARTITION OF %s FOR VALUES FROM (%L) TO (%L)', name, parent,
                rpad(lpad(to_hex(week * week_ms), 12, '0'), 32, '0')::uuid,
                rpad(lpad(to_hex((week + 1) * week_ms), 12, '0'), 32, '0')::uuid);
            IF parent = 'hookledger.fact' THEN
                EXECUTE format('CREATE TRIGGER append_only_truncate BEFORE TRUNCATE ON %s
                    FOR EACH STATEMENT EXECUTE FUNCTION hookledger.refuse_change()', name);
            ELSIF parent = 'projection_1.delivery_state' THEN
                EXECUTE format('ALTER TABLE %s SET (fillfactor = 70)', name);
            END IF;
            made := made + 1;
        END LOOP;
    END LOOP;
    RETURN made;
END
$$;
SELECT hookledger.create_partitions();

-- ---------------------------------------------------------------------------------------------------------------
-- Who may do what. On the ledgers: SELECT and INSERT, for the service that writes them, and nothing else for anyone.
REVOKE ALL ON FUNCTION hookledger.create_partitions(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hookledger.create_partitions(integer) TO hookledger_ingress, hookledger_dispatcher;

GRANT SELECT ON hookledger.ledger_epoch TO hookledger_ingress, hookledger_dispatcher, hookledger_registry;
GRANT USAGE ON SEQUENCE hookledger.fact_position TO hookledger_ingress, hookledger_dispatcher;
GRANT SELECT, INSERT ON hookledger.fact TO hookledger_ingress, hookledger_dispatcher;

GRANT SELECT, INSERT ON hookledger.message, hookledger.message_body, hookledger.outbox TO hookledger_ingress;
GRANT SELECT, INSERT, UPDATE, DELETE ON hookledger.idempotency TO hookledger_ingress;
GRANT SELECT, INSERT, DELETE ON hookledger.rejected TO hookledger_ingress;

GRANT SELECT ON hookledger.message, hookledger.message_body TO hookledger_dispatcher;
GRANT SELECT, INSERT, UPDATE, DELETE ON hookledger.outbox TO hookledger_dispatcher;
GRANT SELECT, INSERT ON hookledger.attempt_content TO hookledger_dispatcher;
GRANT SELECT, INSERT, UPDATE ON projection_1.delivery_state TO hookledger_dispatcher;
GRANT SELECT, INSERT ON projection_1.attempt TO hookledger_dispatcher;
GRANT SELECT, INSERT, UPDATE, DELETE ON hookledger.process, hookledger.app_turn, hookledger.lane, hookledger.queue,
    hookledger.checkpoint TO hookledger_dispatcher;

GRANT SELECT ON hookledger.fact, hookledger.message, hookledger.message_body, hookledger.attempt_content,
    hookledger.outbox, hookledger.rejected, hookledger.lane, hookledger.process, projection_1.delivery_state,
    projection_1.attempt TO hookledger_registry;
GRANT SELECT, INSERT, UPDATE, DELETE ON hookledger.answer TO hookledger_registry;
