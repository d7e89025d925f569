-- Circuit breakers that are not closed, over all dispatchers. Runtime state, as lanes and throttles are: with a row
-- nothing is lost but what an endpoint that is down would be found out by again, so they are not logged.
CREATE UNLOGGED TABLE hookledger.breaker (
    endpoint       uuid PRIMARY KEY,
    app            uuid NOT NULL,
    config_version integer NOT NULL,     -- of the endpoint: another one is tried afresh
    openings       integer NOT NULL,     -- in a row
    opened_at      timestamptz NOT NULL, -- the first of them
    open_until     timestamptz NOT NULL, -- from then on one attempt may go
    probe          uuid,                 -- the delivery whose attempt it is,
    prober         uuid                  -- and the process that makes it: the queue says whether it still does
) WITH (fillfactor = 50);
GRANT SELECT, INSERT, UPDATE, DELETE ON hookledger.breaker TO hookledger_dispatcher;
GRANT SELECT ON hookledger.breaker TO hookledger_registry;
-- Whether an endpoint is down is read off what its attempts came to, whoever made them.
GRANT SELECT ON projection_1.attempt TO hookledger_dispatcher;
