-- Lanes complete: throttles, what is parked, and the order of ordered endpoints.

-- A lane, or an application's turn, that is parked is not looked at before `not_before`; `due_at` stays what it is.
ALTER TABLE hookledger.lane
    DROP COLUMN rate,
    DROP COLUMN tokens,
    DROP COLUMN filled_at,
    ADD COLUMN not_before timestamptz NOT NULL DEFAULT '-infinity';
ALTER TABLE hookledger.app_turn ADD COLUMN not_before timestamptz NOT NULL DEFAULT '-infinity';

-- One account for each endpoint and application with a rate, over all replicas: until when its time is spent, and until
-- when turns are promised to lanes that were turned away.
CREATE TABLE hookledger.throttle (
    owner          uuid PRIMARY KEY,
    spent_until    timestamptz NOT NULL,
    promised_until timestamptz NOT NULL
) WITH (fillfactor = 50);
GRANT SELECT, INSERT, UPDATE, DELETE ON hookledger.throttle TO hookledger_dispatcher;

-- Order of acceptance is that of the message's first fact: (epoch, xact, position). Set where the lane is an ordered one.
ALTER TABLE hookledger.queue
    ADD COLUMN epoch integer,
    ADD COLUMN xact xid8,
    ADD COLUMN position bigint;
CREATE INDEX queue_order ON hookledger.queue (lane, epoch, xact, position) WHERE xact IS NOT NULL;

-- Whether an older message may still come is read off the outbox. `app` is NULL in rows of an ingress of an older
-- version: they may be anybody's.
ALTER TABLE hookledger.outbox ADD COLUMN app uuid, ADD COLUMN xact xid8;
ALTER TABLE hookledger.outbox ALTER COLUMN xact SET DEFAULT pg_current_xact_id();
CREATE INDEX outbox_order ON hookledger.outbox (app, xact);

-- The lane of an ordering key within an endpoint; without a key, of all that has none. `libs.common.domain.lanes` has
-- the same in Python.
CREATE FUNCTION hookledger.ordering_lane(endpoint uuid, key text) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT substr(encode(sha256(uuid_send(endpoint) || convert_to(coalesce(key, ''), 'UTF8')), 'hex'), 1, 32)::uuid
$$;

-- What operators want passed over. Dispatchers take these up and record the fact.
CREATE TABLE hookledger.skip_request (
    delivery uuid PRIMARY KEY,
    actor    text NOT NULL,
    asked_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
GRANT INSERT ON hookledger.skip_request TO hookledger_registry;
GRANT SELECT, DELETE ON hookledger.skip_request TO hookledger_dispatcher;

-- Lanes of ordering keys go when they are empty: there are as many as there are keys.
GRANT DELETE ON hookledger.lane TO hookledger_dispatcher;

-- What is held is still to be sent: its body stays.
CREATE OR REPLACE FUNCTION hookledger.erase_expired_bodies(most integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
    found integer;
BEGIN
    WITH due AS (
        SELECT e.message FROM hookledger.body_expiry e
        WHERE e.erase_at <= clock_timestamp()
          AND NOT EXISTS (SELECT FROM hookledger.outbox o WHERE o.message = e.message)
          AND NOT EXISTS (
              SELECT FROM projection_1.delivery_state d
              WHERE d.message = e.message AND (d.status IN ('waiting', 'sending', 'held') OR d.resend_at IS NOT NULL))
        ORDER BY e.erase_at LIMIT most FOR UPDATE OF e SKIP LOCKED
    ), erased AS (
        DELETE FROM hookledger.message_body b USING due WHERE b.message = due.message
    ), forgotten AS (
        DELETE FROM hookledger.body_expiry e USING due WHERE e.message = due.message RETURNING 1
    )
    SELECT count(*) INTO found FROM forgotten;
    RETURN found;
END
$$;
