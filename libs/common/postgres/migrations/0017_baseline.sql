-- What the facts that are kept are folded on, where older ones are no longer kept: `hookledger retain` writes it down. Not a
-- projection: nothing that is still here says it.
CREATE TABLE hookledger.baseline (
    alone     boolean PRIMARY KEY DEFAULT true CHECK (alone),
    kept_from timestamptz NOT NULL DEFAULT '-infinity', -- when the first week begins that is kept
    epoch     integer NOT NULL,                         -- up to where health is in baseline_health
    xact      xid8 NOT NULL,
    position  bigint NOT NULL
);
CREATE TABLE hookledger.baseline_health (LIKE projection_1.endpoint_health, PRIMARY KEY (endpoint));
-- Of attempts whose facts are dropped though they ended later than that.
CREATE TABLE hookledger.baseline_hour (LIKE projection_1.endpoint_hour, PRIMARY KEY (app, endpoint, hour, result));

-- `hookledger verify` begins with it.
GRANT SELECT ON hookledger.baseline, hookledger.baseline_health, hookledger.baseline_hour TO hookledger_registry;
