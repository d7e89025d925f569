-- Health: how each endpoint fares. A projection of the ledger that follows it.
CREATE TABLE projection_1.endpoint_health (
    endpoint         uuid PRIMARY KEY,
    app              uuid NOT NULL,
    config_version   integer NOT NULL,   -- the configuration that met with the failures
    failures         integer NOT NULL,   -- in a row
    failing_since    timestamptz,        -- the first of them
    gone_at          timestamptz,        -- a 410 among them
    last_success_at  timestamptz,
    last_failure_at  timestamptz,
    latency_day      date,               -- of `latencies`
    latencies        bigint[] NOT NULL,  -- answers of that day, by the buckets of the domain's `health`
    latencies_before bigint[] NOT NULL   -- those of the day before
) WITH (fillfactor = 70);
-- What the registry looks through for endpoints to speak of: those that fail, the latest failures last.
CREATE INDEX endpoint_health_failing ON projection_1.endpoint_health (last_failure_at) WHERE failing_since IS NOT NULL;
CREATE INDEX registry_object_failing ON hookledger.registry_object (id)
    WHERE kind = 'endpoint' AND deleted_at IS NULL AND data ? 'failing';
DROP INDEX projection_1.attempt_gone; -- health has the 410s

-- What lanes count: `hookledger rebuild` counts it again, lane by lane.
CREATE INDEX queue_counted ON hookledger.queue (lane) WHERE counted;

GRANT SELECT, INSERT, UPDATE ON projection_1.endpoint_health TO hookledger_dispatcher;
GRANT SELECT ON projection_1.endpoint_health TO hookledger_registry;
