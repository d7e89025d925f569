-- Pages are read in the order of an index.

-- A message's destinations. Neither column ever changes.
CREATE INDEX delivery_state_by_destination ON projection_1.delivery_state (message, endpoint);
DROP INDEX projection_1.delivery_state_by_message;

-- Event types by name. The index that keeps names unique has a condition between, and so not their order.
CREATE INDEX registry_object_event_type ON hookledger.registry_object (org, uid)
    WHERE kind = 'event_type' AND deleted_at IS NULL;
