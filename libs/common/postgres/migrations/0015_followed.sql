-- The facts that are followed in the ledger's order: all but those of which nobody who follows wants any, three or four of
-- the five that a delivery comes to. These stand in no index for that, and followers do not read past them. Whoever
-- follows asks with this function, or the index is not used.
CREATE FUNCTION hookledger.is_followed(kind text, data bytea) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT kind NOT IN ('MessageFannedOut', 'DeliveryScheduled', 'AttemptStarted')
        AND (kind <> 'MessageAccepted' OR position('"publish":true'::bytea IN data) > 0)
$$;
CREATE INDEX fact_followed ON hookledger.fact (epoch, xact, position) WHERE hookledger.is_followed(kind, data);
