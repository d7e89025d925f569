-- Statistics: how attempts ended, for each endpoint and hour. A projection of the ledger that follows it.
CREATE TABLE projection_1.endpoint_hour (
    app      uuid NOT NULL,
    endpoint uuid NOT NULL,
    hour     timestamptz NOT NULL, -- its first instant; the hour in which the attempts ended
    result   text NOT NULL,        -- as in attempt: an outcome, or abandoned, or unknown
    attempts bigint NOT NULL,
    total_us bigint NOT NULL,      -- the durations of those attempts that have an outcome, in microseconds
    PRIMARY KEY (app, endpoint, hour, result)
) WITH (fillfactor = 70);

GRANT SELECT, INSERT, UPDATE ON projection_1.endpoint_hour TO hookledger_dispatcher;

-- `hookledger verify` compares the statistics and the schedule with the ledger.
GRANT SELECT ON projection_1.endpoint_hour, hookledger.checkpoint, hookledger.queue, hookledger.app_turn
    TO hookledger_registry;
