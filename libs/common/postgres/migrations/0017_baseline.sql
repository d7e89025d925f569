-- What the facts that are kept are folded on, where older ones are no longer kept: `hookledger retain` writes it down in
-- the transaction that drops them. Not a projection: nothing that is still here says it.
CREATE TABLE hookledger.baseline (
    follower text PRIMARY KEY, -- whose projection
    epoch    integer NOT NULL, -- where that had come to: what is folded on it lies behind this place
    xact     xid8 NOT NULL,
    position bigint NOT NULL
);
CREATE TABLE hookledger.baseline_health (LIKE projection_1.endpoint_health, PRIMARY KEY (endpoint));
-- Of attempts that ended later than the week of their message, which is dropped.
CREATE TABLE hookledger.baseline_hour (LIKE projection_1.endpoint_hour, PRIMARY KEY (app, endpoint, hour, result));

-- `hookledger verify` begins with it.
GRANT SELECT ON hookledger.baseline, hookledger.baseline_health, hookledger.baseline_hour TO hookledger_registry;
