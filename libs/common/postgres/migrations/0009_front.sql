-- What producers say about a message, the limits of acceptance, and what becomes of rejected requests.

ALTER TABLE hookledger.message
    ADD COLUMN IF NOT EXISTS tags text[] NOT NULL DEFAULT '{}',
    ADD COLUMN deliver_at timestamptz; -- before which nothing of it is sent

-- Bodies that their producer wants erased, and from when on. A row goes with its body.
CREATE TABLE hookledger.body_expiry (
    message  uuid PRIMARY KEY,
    erase_at timestamptz NOT NULL
);
CREATE INDEX body_expiry_due ON hookledger.body_expiry (erase_at);

-- Erases at most `most` bodies whose time has come; how many it looked at. A body that is still to be sent stays until
-- its deliveries are over. A function, so that no service may delete a body as it likes.
CREATE FUNCTION hookledger.erase_expired_bodies(most integer) RETURNS integer
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
              WHERE d.message = e.message AND (d.status IN ('waiting', 'sending') OR d.resend_at IS NOT NULL))
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
REVOKE ALL ON FUNCTION hookledger.erase_expired_bodies(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hookledger.erase_expired_bodies(integer) TO hookledger_ingress;
GRANT INSERT ON hookledger.body_expiry TO hookledger_ingress;

-- Token buckets of keys and applications whose acceptance is limited: replicas take their shares from them. Nothing is
-- lost with them, so they are not logged.
CREATE UNLOGGED TABLE hookledger.allowance (
    subject   uuid PRIMARY KEY,
    tokens    double precision NOT NULL, -- below 0 where a batch ran up a debt
    granted   boolean NOT NULL,          -- whether the last who asked got what it asked for
    filled_at timestamptz NOT NULL
) WITH (fillfactor = 50);
GRANT SELECT, INSERT, UPDATE ON hookledger.allowance TO hookledger_ingress;

-- Rejected requests: which message one became, and since when.
ALTER TABLE hookledger.rejected
    ADD COLUMN message uuid,
    ADD COLUMN admitted_at timestamptz;
CREATE INDEX rejected_by_place ON hookledger.rejected ((coalesce(source, app, org)), id DESC);
CREATE INDEX rejected_age ON hookledger.rejected (at);
GRANT UPDATE (message, admitted_at) ON hookledger.rejected TO hookledger_ingress;

-- Appends what an operator did with a rejected request to the registry's ledger, where all acts are. A function, so
-- that the ingress, which does these, can write no other kind of fact.
CREATE FUNCTION hookledger.record_rejected_act(
    rejected uuid, org uuid, app uuid, kind text, actor text, data bytea
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF kind NOT IN ('RejectedReverified', 'RejectedAdmitted') THEN
        RAISE EXCEPTION '% is no act on a rejected request', kind USING ERRCODE = 'check_violation';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(rejected::text, 0)); -- versions of a stream, one after the other
    INSERT INTO hookledger.registry_fact
        (stream, version, epoch, org, app, kind, schema, at, actor, registry_version, data)
    SELECT record_rejected_act.rejected,
        (SELECT coalesce(max(f.version), 0) + 1 FROM hookledger.registry_fact f
         WHERE f.stream = record_rejected_act.rejected),
        (SELECT max(e.epoch) FROM hookledger.ledger_epoch e),
        record_rejected_act.org, record_rejected_act.app, record_rejected_act.kind, 1, clock_timestamp(),
        record_rejected_act.actor, v.version, record_rejected_act.data
    FROM hookledger.registry_version v;
END
$$;
REVOKE ALL ON FUNCTION hookledger.record_rejected_act(uuid, uuid, uuid, text, text, bytea) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION hookledger.record_rejected_act(uuid, uuid, uuid, text, text, bytea) TO hookledger_ingress;
