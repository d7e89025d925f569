-- Operational messages: what happens to an organisation's endpoints and deliveries is told to the endpoints of its
-- application with the uid `operational`, by two followers of the ledgers.

-- The join from a fact's organisation to that application, and whether there is any.
CREATE INDEX registry_object_operational ON hookledger.registry_object (org)
    WHERE kind = 'application' AND uid = 'operational' AND deleted_at IS NULL;

-- What happened before this migration is not told.
INSERT INTO hookledger.checkpoint (follower, epoch, xact, position)
SELECT follower, coalesce((SELECT max(epoch) FROM hookledger.ledger_epoch), 0),
    pg_snapshot_xmin(pg_current_snapshot()), 0
FROM unnest(ARRAY['operational_deliveries', 'operational_endpoints']) AS u (follower);

-- These messages are the dispatcher's own.
GRANT SELECT ON hookledger.registry_fact TO hookledger_dispatcher;
GRANT INSERT ON hookledger.message, hookledger.message_body TO hookledger_dispatcher;
