-- A page of a message's destinations is read in its order; neither column ever changes.
CREATE INDEX delivery_state_by_destination ON projection_1.delivery_state (message, endpoint);
DROP INDEX projection_1.delivery_state_by_message;
